"""The real step of a config with shapes in place of arrays: what dry runs and plans compile."""

import collections
import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from lco_jax.config import TrainConfig
from lco_jax.data.batch import Batch, Shape
from lco_jax.data.loader import slots_per_cell
from lco_jax.data.rounding import round_rows
from lco_jax.models.build import build, on_mesh
from lco_jax.models.config import ModelConfig, public_config, read_config
from lco_jax.models.omni import available_towers
from lco_jax.train import mesh as meshes
from lco_jax.train.abstract_media import abstract_media, media_shape, most_tokens
from lco_jax.train.optimizer import init_optimizer, make_optimizer
from lco_jax.train.steps import (
    BATCH_SPECS,
    TrainState,
    contrastive_objective,
    contrastive_step,
)

ITEM_TOKENS = 32
"""Assumed mean length of an item behind the shared head: an NLI sentence and its prompt."""
_HEAD_TOKENS = 14
"""Of Qwen's chat template with its default system turn."""
_STEPS = 1000


@dataclass(frozen=True)
class AbstractRun:
    """A run's step, and the shapes and shardings of what it takes."""

    step: Callable
    loss_fn: Callable
    state: TrainState
    batch: Batch
    prefix: jax.ShapeDtypeStruct
    shape: Shape
    model: ModelConfig

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
    model = _sizes(config).first_layers(config.model.num_layers)
    _check(model, mesh)
    ref = config.model
    model = model.with_towers(available_towers(model) if ref.towers is None else ref.towers)
    graph, trainable, frozen = build(
        model, ref.trainable, ref.dtype, towers=available_towers(model)
    )
    optimizer = make_optimizer(config.optimizer, config.num_steps or _STEPS)
    everywhere = jax.NamedSharding(mesh, jax.P())
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
        trainable=trainable,
        frozen=frozen,
        opt_state=on_mesh(jax.eval_shape(functools.partial(init_optimizer, optimizer), trainable)),
    )
    shape, batch = _batch(config, model, mesh)
    return AbstractRun(
        step=contrastive_step(graph, optimizer, config.objective, config.memory, config.seed),
        loss_fn=contrastive_objective(graph, config.objective, config.memory),
        state=state,
        batch=batch,
        prefix=jax.ShapeDtypeStruct((_HEAD_TOKENS,), jnp.int32, sharding=everywhere),
        shape=shape,
        model=model,
    )


def saved_activations(run: AbstractRun) -> list[jax.ShapeDtypeStruct]:
    """Shapes of what the forward pass leaves for the backward pass, weights left out."""
    key, state = jax.eval_shape(lambda: jax.random.key(0)), run.state

    def pull_back(trainable, frozen, key, batch, prefix):
        return jax.vjp(lambda t: run.loss_fn(t, frozen, key, batch, prefix)[0], trainable)[1]

    shapes = jax.eval_shape(pull_back, state.trainable, state.frozen, key, run.batch, run.prefix)
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


def _sizes(config: TrainConfig) -> ModelConfig:
    if Path(config.model.path).is_dir():
        return read_config(Path(config.model.path))
    return public_config(config.model.path)


def _check(model: ModelConfig, mesh: jax.sharding.Mesh) -> None:
    """Name the size that an axis does not divide, before the compiler does."""
    text, tensor, fsdp = model.text, mesh.shape["tensor"], mesh.shape["fsdp"]
    sizes = {
        ("tensor", tensor, "attention heads"): text.num_heads,
        ("tensor", tensor, "key-value heads"): text.num_kv_heads,
        ("tensor", tensor, "the feed-forward width"): text.intermediate_size,
        ("tensor", tensor, "the vocabulary"): text.vocab_size,
        ("fsdp", fsdp, "the model width"): text.hidden_size,
    }
    for (axis, parts, name), size in sizes.items():
        if size % parts:
            fits = [str(n) for n in (1, 2, 4, 8, 16) if size % n == 0]
            raise ValueError(
                f"mesh.{axis}={parts} does not divide {name} ({size}); use {', '.join(fits)}"
            )


def _batch(config: TrainConfig, model: ModelConfig, mesh: jax.sharding.Mesh) -> tuple[Shape, Batch]:
    shards, chunks = meshes.num_shards(mesh), config.memory.encode_chunks
    size, cells = config.data.batch_size, shards * chunks
    if size < cells:
        raise ValueError(
            f"batch_size={size} is less than encode_chunks={chunks} times {shards} data shards; "
            f"use at least {cells}, or a larger mesh.tensor"
        )
    roles = 2 + config.data.num_negatives
    examples = slots_per_cell(size, cells)
    row_tokens = next(n for n in config.memory.row_tokens if n >= 3 * ITEM_TOKENS)
    media = media_shape(config, model, examples * roles)
    image_tokens = 0
    if model.vision is not None:
        image_tokens = media.patch_rows * media.frame_row // model.vision.unit_patches
        most = most_tokens(config, model, ITEM_TOKENS)
        row_tokens = next(n for n in config.memory.row_tokens if n >= most)
    tokens = examples * roles * ITEM_TOKENS + image_tokens
    rows = round_rows(math.ceil(tokens / row_tokens))
    table = (chunks, rows * shards, row_tokens)
    items = (chunks, roles, examples * shards)

    def array(shape: tuple[int, ...], dtype: type, spec: jax.P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, spec))

    specs = BATCH_SPECS
    return Shape(row_tokens, rows, media), Batch(
        tokens=array(table, np.int32, specs.tokens),
        segments=array(table, np.int32, specs.segments),
        positions=array((*table, 3), np.int32, specs.positions),
        pool=array(items, np.int32, specs.pool),
        valid=array(items, np.bool_, specs.valid),
        content=array((*items, 2), np.uint32, specs.content),
        media=abstract_media(model, media, table, chunks, shards, array),
    )


def count_negatives(config: TrainConfig) -> int:
    """Candidates that an anchor is told apart from."""
    return config.data.batch_size * (1 + config.data.num_negatives) - 1


def count(shapes) -> int:
    """Elements of all arrays of a tree."""
    return sum(x.size for x in jax.tree.leaves(shapes))


def shard_bytes(shapes) -> int:
    """Bytes of all arrays of a tree on one device."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(shapes)
    )


def text_table(title: str, rows: dict[str, str]) -> str:
    """Names and values as a table for the console."""
    table = Table(title=title, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(file=io.StringIO(), width=110)
    console.print(table)
    return console.file.getvalue()
