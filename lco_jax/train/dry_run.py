"""What a run would take, found by compiling its real step on simulated devices."""

import collections
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from lco_jax.config import MeshConfig, TrainConfig
from lco_jax.data.batch import Batch, Shape
from lco_jax.data.media_batch import MediaBatch, MediaShape, VisionBatch
from lco_jax.data.patch_layout import WINDOW_ROW
from lco_jax.data.rounding import round_coarsely, round_rows
from lco_jax.models.build import build, on_mesh
from lco_jax.models.config import ModelConfig, public_config, read_config
from lco_jax.models.omni import available_towers
from lco_jax.train import mesh as meshes
from lco_jax.train.optimizer import make_optimizer
from lco_jax.train.steps import (
    BATCH_SPECS,
    MEDIA_SPECS,
    TrainState,
    contrastive_objective,
    contrastive_step,
)

_ITEM_TOKENS = 32
"""Assumed mean length of an item behind the shared head: an NLI sentence and its prompt."""
_HEAD_TOKENS = 14
"""Of Qwen's chat template with its default system turn."""
_STEPS = 1000
_IMAGE_SHARE = 0.25
"""Assumed share of items with an image, of the largest size. Source: LCO-Emb, variant M (a quarter
of the triplets)."""
_PLACEMENT = 1.12
"""Patches of a budget for one patch of a large image, whose windows leave gaps."""


def simulate_devices(mesh: MeshConfig, num_devices: int | None) -> None:
    """Make JAX believe in as many CPU devices as the mesh needs, before it starts.

    Raises:
        ValueError: the mesh leaves the number open and none is given.
    """
    sizes = (mesh.data, mesh.fsdp, mesh.tensor)
    if num_devices is None:
        if -1 in sizes:
            raise ValueError(
                "the mesh takes all devices it finds; say how many to simulate: "
                "--num-devices 256, or give all of --mesh.data, --mesh.fsdp, --mesh.tensor"
            )
        num_devices = math.prod(sizes)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", num_devices)
    # The partitioned program and its buffers are wanted, not fast code.
    jax.config.update("jax_disable_most_optimizations", True)


def dry_run(config: TrainConfig) -> str:
    """A table of parameters, bytes per device, batch shapes and compilation of the step.

    Nothing is loaded and nothing is computed. What the backward pass needs is counted as the
    program states it; a compiler may keep less of it, and needs some workspace beside it.

    Raises:
        ValueError: the config does not fit the mesh or the model.
    """
    mesh = meshes.make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        run = abstract_run(config)
        saved = _saved_activations(run)
        start = time.perf_counter()
        run.step.lower(run.state, run.batch, run.prefix).compile()
        seconds = time.perf_counter() - start
    state, batch, shape = run.state, run.batch, run.shape
    rows = {
        "mesh": " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items()),
        "trainable parameters": f"{_count(state.trainable):,}",
        "frozen parameters": f"{_count(state.frozen):,}",
        "per device: trainable": _bytes(state.trainable),
        "per device: frozen": _bytes(state.frozen),
        "per device: optimizer": _bytes(state.opt_state),
        "per device: batch": _bytes(batch),
        "per device: gradients": _bytes(state.trainable),
        "per device: saved for the backward pass": _bytes(saved),
        "batch": (
            f"{config.data.batch_size} triplets in {config.memory.encode_chunks} chunks; per "
            f"device and chunk {shape.rows} rows of {shape.row_tokens} tokens"
            + _describe_media(shape.media)
        ),
        "negatives per anchor": f"{_negatives(config):,}",
        "programs": f"1 compiled in {seconds:.1f} s; one more for each further batch shape",
    }
    return _table(rows)


@dataclass(frozen=True)
class AbstractRun:
    """A run's step, and the shapes and shardings of what it takes."""

    step: Callable
    loss_fn: Callable
    state: TrainState
    batch: Batch
    prefix: jax.ShapeDtypeStruct
    shape: Shape


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
        opt_state=on_mesh(jax.eval_shape(optimizer.init, trainable)),
    )
    shape, batch = _batch(config, model, mesh)
    return AbstractRun(
        step=contrastive_step(graph, optimizer, config.objective, config.memory, config.seed),
        loss_fn=contrastive_objective(graph, config.objective, config.memory),
        state=state,
        batch=batch,
        prefix=jax.ShapeDtypeStruct((_HEAD_TOKENS,), jnp.int32, sharding=everywhere),
        shape=shape,
    )


def _saved_activations(run: AbstractRun) -> list[jax.ShapeDtypeStruct]:
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
    size, unit = config.data.batch_size, shards * chunks
    if size % unit:
        raise ValueError(
            f"batch_size={size} does not divide over encode_chunks={chunks} times {shards} data "
            f"shards; use a multiple of {unit} such as {max(1, round(size / unit)) * unit}"
        )
    roles = 2 + config.data.num_negatives
    examples = size // unit
    row_tokens = next(n for n in config.memory.row_tokens if n >= 3 * _ITEM_TOKENS)
    media = _media_shape(config, model, examples * roles)
    image_tokens = 0
    if model.vision is not None:
        image_tokens = media.patch_rows * media.frame_row // model.vision.unit_patches
        row_tokens = next(n for n in config.memory.row_tokens if n >= _most_tokens(config, model))
    tokens = examples * roles * _ITEM_TOKENS + image_tokens
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
        media=_media(model, media, table, chunks, shards, array),
    )


def _media_shape(config: TrainConfig, model: ModelConfig, num_items: int) -> MediaShape:
    """Room for the images of a data shard, all of the largest size that the config allows."""
    if model.vision is None:
        return MediaShape()
    unit_px = model.vision.patch_px * model.vision.merge_size
    units = config.data.media.image_max_pixels // unit_px**2
    patches = units * model.vision.unit_patches
    frame_row = next(n for n in config.memory.frame_rows if n >= _PLACEMENT * patches)
    num_images = math.ceil(_IMAGE_SHARE * num_items)
    per_row = max(1, int(frame_row // (_PLACEMENT * patches)))
    return MediaShape(frame_row, round_coarsely(math.ceil(num_images / per_row)))


def _most_tokens(config: TrainConfig, model: ModelConfig) -> int:
    """Of an item with one image and a short text."""
    unit_px = model.vision.patch_px * model.vision.merge_size
    return config.data.media.image_max_pixels // unit_px**2 + _ITEM_TOKENS


def _media(
    model: ModelConfig,
    shape: MediaShape,
    table: tuple[int, int, int],
    chunks: int,
    shards: int,
    array: Callable[..., jax.ShapeDtypeStruct],
) -> MediaBatch | None:
    if shape == MediaShape():
        return None
    sizes = model.vision.sizes
    patches = shape.patch_rows * shape.frame_row
    width = sizes["C"] * sizes["T"] * sizes["Y"] * sizes["X"]
    group, spec = (chunks, shards), MEDIA_SPECS.vision
    vision = VisionBatch(
        patches=array((*group, patches, width), np.float32, spec.patches),
        windows=array((*group, patches // WINDOW_ROW, WINDOW_ROW), np.int32, spec.windows),
        frames=array((*group, shape.patch_rows, shape.frame_row), np.int32, spec.frames),
        coordinates=array((*group, patches, 2), np.int32, spec.coordinates),
    )
    return MediaBatch(vision, None, array(table, np.int32, MEDIA_SPECS.slots))


def _describe_media(shape: MediaShape) -> str:
    if not shape.patch_rows:
        return ""
    return f", {shape.patch_rows} rows of {shape.frame_row} patches"


def _negatives(config: TrainConfig) -> int:
    return config.data.batch_size * (1 + config.data.num_negatives) - 1


def _count(shapes) -> int:
    return sum(x.size for x in jax.tree.leaves(shapes))


def _bytes(shapes) -> str:
    total = sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(shapes)
    )
    return f"{total / 1e9:.3f} GB"


def _table(rows: dict[str, str]) -> str:
    table = Table(title="dry run", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(file=io.StringIO(), width=110)
    console.print(table)
    return console.file.getvalue()
