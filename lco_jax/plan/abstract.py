"""The real step of a config with shapes in place of arrays: what dry runs and plans compile."""

import collections
import dataclasses
import functools
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from lco_jax.config import TrainConfig
from lco_jax.data.pack.batch import Batch, Shape
from lco_jax.models.build import on_mesh
from lco_jax.models.config import ModelConfig, public_config, read_config
from lco_jax.models.describe import describe_model
from lco_jax.objectives.next_token import LEARNED_BLOCK
from lco_jax.objectives.traits import traits_of
from lco_jax.plan.assumed_batch import assume_batch, share_with_targets
from lco_jax.train.manifest import underlying
from lco_jax.train.optimizer import init_optimizer, make_optimizer, make_schedule
from lco_jax.train.update import TrainState, make_step

_PREAMBLE_TOKENS = 14
"""Of Qwen's chat template with its default system turn."""
_STEPS = 1000
TABLE_WIDTH = 110
"""Of what plans and rehearsals print, in characters."""


@dataclass(frozen=True)
class AbstractRun:
    """A run's step, and the shapes and shardings of what it takes."""

    step: Callable
    loss_fn: Callable
    state: TrainState
    batch: Batch
    preamble: jax.ShapeDtypeStruct
    shape: Shape
    model: ModelConfig
    shares: dict[str, float]
    """How often the conditionals of named scopes run (see `Program`)."""

    @property
    def slots(self) -> int:
        """Tokens of all rows of a step, padding included."""
        return math.prod(self.batch.tokens.shape)


def abstract_run(config: TrainConfig) -> AbstractRun:
    """The step of a config on the mesh that is set; nothing is allocated.

    Raises:
        ValueError: the config does not fit the mesh or the model.
    """
    mesh = jax.sharding.get_mesh()
    traits = traits_of(config.objective)
    config = dataclasses.replace(config, model=underlying(config.model))
    sizes = model_sizes(config)
    model = describe_model(config.model, sizes, with_head=traits.needs_head)
    num_steps = config.num_steps or _STEPS
    schedule = make_schedule(config.optimizer, num_steps)
    optimizer = make_optimizer(config.optimizer, schedule, config.model.trainable)
    everywhere = jax.NamedSharding(mesh, jax.P())
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
        trainable=model.trainable,
        frozen=model.frozen,
        opt_state=on_mesh(
            jax.eval_shape(functools.partial(init_optimizer, optimizer), model.trainable)
        ),
    )
    shape, batch = assume_batch(config, model.read, mesh)
    return AbstractRun(
        step=make_step(config, model.graph, optimizer, schedule),
        loss_fn=traits.make_loss(model.graph, config.objective, config.memory),
        state=state,
        batch=batch,
        preamble=jax.ShapeDtypeStruct((_PREAMBLE_TOKENS,), jnp.int32, sharding=everywhere),
        shape=shape,
        model=model.read,
        shares={LEARNED_BLOCK: share_with_targets(config, shape, batch)},
    )


def saved_activations(run: AbstractRun) -> list[jax.ShapeDtypeStruct]:
    """Shapes of what the forward pass leaves for the backward pass, weights left out."""
    key, state = jax.eval_shape(lambda: jax.random.key(0)), run.state

    def pull_back(trainable, frozen, key, batch, preamble):
        return jax.vjp(lambda t: run.loss_fn(t, frozen, key, batch, preamble)[0], trainable)[1]

    shapes = jax.eval_shape(pull_back, state.trainable, state.frozen, key, run.batch, run.preamble)
    weights = collections.Counter(
        (x.shape, x.dtype) for x in jax.tree.leaves((state.trainable, state.frozen))
    )
    saved = []
    for x in jax.tree.leaves(shapes):
        if weights[x.shape, x.dtype]:
            weights[x.shape, x.dtype] -= 1
        else:
            saved.append(x)
    return on_mesh(saved)


def model_sizes(config: TrainConfig) -> ModelConfig:
    """The sizes of the model that a config names, from its folder or as they are known."""
    path = underlying(config.model).path
    return read_config(Path(path)) if Path(path).is_dir() else public_config(path)


def count(shapes) -> int:
    """Elements of all arrays of a tree."""
    return sum(x.size for x in jax.tree.leaves(shapes))


def shard_bytes(shapes) -> int:
    """Bytes of all arrays of a tree on one device."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(shapes)
    )


def text_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Names and values as a table for the console; long paths are broken, never cut."""
    table = Table("", Column(overflow="fold"), title=title, show_header=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(file=io.StringIO(), width=TABLE_WIDTH)
    console.print(table)
    return console.file.getvalue()
