"""How well a model generates: the loss of held-out responses."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from lco_jax.config import DataConfig, Generative, Memory, Source
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.records import Exchange
from lco_jax.data.sources.open import open_source
from lco_jax.objectives.generative import generative_objective
from lco_jax.objectives.loaders import GenerativeLoader
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.train.restore import OpenedModel

_BATCH = 50
_SEED = 0


@dataclass(frozen=True)
class ResponseLoss:
    """Means over held-out exchanges, in nats."""

    nats_per_token: float
    nats_per_response: float
    accuracy: float
    """Share of the tokens that are more likely than any other."""
    count: int
    """Exchanges: whole batches of the source."""


def response_loss(opened: OpenedModel, source: Source, data: DataConfig) -> ResponseLoss:
    """The loss of the responses of a source, given their prompts, on the mesh that is set.

    Args:
        opened: a model with its output head.
        data: of a run, for what it says of prompts and media; its sources do not count.

    Raises:
        ValueError: the source holds no exchanges, or a medium cannot be read.
    """
    mesh = jax.sharding.get_mesh()
    memory = Memory()
    size = min(_BATCH, len(open_source(source, Exchange)))
    config = DataConfig((source,), size, profile=data.profile, media=data.media)
    loader = GenerativeLoader(
        config,
        memory,
        opened.processor,
        Generative(),
        seed=_SEED,
        num_shards=meshes.num_shards(mesh),
    )
    steps = loader.steps_per_epoch
    loss_fn = _compiled(opened.graph)
    prefix = jnp.asarray(opened.processor.head)
    loss = correct = tokens = 0.0
    for (_, local, _), _ in zip(loader, range(steps), strict=False):
        batch = processes.to_global(mesh, local, batch_specs(local))
        mean, metrics = loss_fn({}, opened.params, jax.random.key(0), batch, prefix)
        count = float(metrics["target_tokens"])
        loss += float(mean) * count
        correct += float(metrics["accuracy@1"]) * count
        tokens += count
    return ResponseLoss(loss / tokens, loss / (steps * size), correct / tokens, steps * size)


@functools.lru_cache(maxsize=4)
def _compiled(graph: nnx.GraphDef) -> Callable:
    # Models of one architecture share their programs (the cells of a grid, say).
    return jax.jit(generative_objective(graph, Memory()))
