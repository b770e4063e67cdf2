"""The layout of LCO-Emb's released trainers as a plan: how long a step would take at least.

    python -m benchmarks.peer_layout --config configs/lco_omni_7b_text.py --topology v5p:4x4x4

Anchors, positives and negatives are three forward passes of all layers over whole prompts, each
item in a row as long as the longest of its role. Layers are computed again in the backward pass,
whose inputs are kept, and the logits of all tokens are computed, which nobody reads. Model, losses,
optimizer, assumed batch and count are those of `launch/plan.py`; where ours are better than
theirs (a frozen tower without gradient, no quantised weights, the kernel of attention for rows that
it takes), theirs are charged for ours.

The assumed texts are all of one length, so padding costs something only beside images, or where
`--item-tokens` says what the longest texts have (`benchmarks/padding.py` measures it).
"""

import dataclasses
import functools
import json
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from flax import nnx

from lco_jax.config import Contrastive, TrainConfig
from lco_jax.data.pack.batch import Batch, Shape
from lco_jax.data.pack.shares import slots_per_cell
from lco_jax.models.describe import describe_model
from lco_jax.nn.splash import SHORTEST_ROW
from lco_jax.objectives.contrastive import contrastive_loss
from lco_jax.objectives.encode import media_features
from lco_jax.objectives.traits import LossFn, traits_of
from lco_jax.plan.abstract import AbstractRun, abstract_run, model_sizes
from lco_jax.plan.assumed_batch import arrays_of, assume_shape, largest_image
from lco_jax.plan.plan import describe, make_plan
from lco_jax.plan.topologies import find_topology
from lco_jax.runtime import mesh as meshes
from lco_jax.train.optimizer import make_optimizer, make_schedule
from lco_jax.train.update import update_step

_TILE = 128
"""Rows for the kernel of attention are multiples of so many tokens."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to compile, and where to note it."""

    config: Path
    topology: str
    batch_size: int = 1056
    item_tokens: int | None = None
    """Of each text behind the preamble, its padding included (None: the assumed length)."""
    json: Path | None = None


def main(arguments: Arguments) -> None:
    """Compile, print."""
    from lco_jax.cli.configs import load_config

    config = load_config(arguments.config)
    data = dataclasses.replace(config.data, batch_size=arguments.batch_size)
    memory = dataclasses.replace(config.memory, remat="full")
    config = dataclasses.replace(config, data=data, memory=memory)
    topology = find_topology(arguments.topology)
    make_run = functools.partial(peer_run, item_tokens=arguments.item_tokens)
    plan = make_plan(config, topology, advised=False, make_run=make_run)
    print(describe(plan, "the released trainers' layout"))
    if arguments.json:
        arguments.json.write_text(json.dumps(plan.to_json(), indent=2) + "\n")


def peer_run(config: TrainConfig, item_tokens: int | None = None) -> AbstractRun:
    """The step in the layout of the released trainers on the mesh that is set; its encode chunks
    are the three roles, whose texts have `item_tokens` (None: as many as are assumed).

    Raises:
        ValueError: the config is not one of triplets, or does not fit the mesh or the model.
    """
    if not isinstance(config.objective, Contrastive):
        raise ValueError(f"{type(config.objective).__name__} has no three forward passes")
    ours = abstract_run(config)
    model = describe_model(config.model, model_sizes(config), with_head=True)
    shape, batch = _padded(config, ours, item_tokens)
    loss_fn = make_loss(model.graph, config)
    schedule = make_schedule(config.optimizer, 1000)
    optimizer = make_optimizer(config.optimizer, schedule, config.model.trainable)
    step = update_step(jax.value_and_grad(loss_fn, has_aux=True), optimizer, schedule, config.seed)
    return dataclasses.replace(
        ours,
        step=step,
        loss_fn=loss_fn,
        state=dataclasses.replace(ours.state, frozen=model.frozen),
        batch=batch,
        shape=shape,
    )


def _padded(config: TrainConfig, ours: AbstractRun, item_tokens: int | None) -> tuple[Shape, Batch]:
    """Roles as chunks, an item a row; images are spread evenly over the roles."""
    mesh = jax.sharding.get_mesh()
    shards, assumed = meshes.num_shards(mesh), traits_of(config.objective).assume(config)
    examples = slots_per_cell(config.data.batch_size, shards)
    length = ours.preamble.shape[0] + (item_tokens or assumed.item_tokens)
    media = assume_shape(config, ours.model, shards).media
    if ours.model.vision is not None:
        length += largest_image(config, ours.model).num_tokens
        images = math.ceil(assumed.image_share * examples * assumed.roles)
        media = media._replace(patch_rows=-(-images // assumed.roles))
    if length > SHORTEST_ROW:
        length = -(-length // _TILE) * _TILE
    shape = Shape(length, examples, media)
    items = (assumed.roles, 1, examples * shards)
    return shape, arrays_of(shape, items, config, ours.model, mesh)


def make_loss(graph: nnx.GraphDef, config: TrainConfig) -> LossFn:
    """The contrastive loss of a batch of one item a row, its roles in place of encode chunks."""

    def loss_fn(trainable, frozen, key, batch: Batch, preamble):
        del preamble  # it stands in every row
        model = nnx.merge(graph, trainable, frozen)
        pooled, logits = [], []
        for role in range(batch.tokens.shape[0]):
            part = jax.tree.map(lambda x: x[role], batch)  # noqa: B023
            features = media_features(model, part)
            hidden, _ = model(
                part.tokens,
                part.positions,
                part.segments,
                media=None if features is None else (features, part.media.slots),
                dropout_key=key,
                remat=config.memory.remat,
            )
            hidden = model.final_norm(hidden)
            # One number of them, or every chip would be sent all.
            logits.append(jax.lax.stop_gradient(model.logits(hidden)).mean())
            pooled.append(hidden[:, -1].astype(jnp.float32))  # rows are padded on the left
        in_roles = lambda x: jnp.moveaxis(x, 0, 1)  # noqa: E731
        loss, metrics = contrastive_loss(
            jnp.stack(pooled)[None],
            in_roles(batch.valid),
            in_roles(batch.content),
            config.objective,
            config.memory,
        )
        return loss, metrics | {"logits": logits}

    return loss_fn


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    main(tyro.cli(Arguments))
