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
from rich.console import Console
from rich.table import Table

from lco_jax.config import Contrastive, Generative, MeshConfig, TrainConfig
from lco_jax.data.batch import Batch, Shape
from lco_jax.data.media_batch import MediaShape
from lco_jax.models.build import build, on_mesh
from lco_jax.models.config import ModelConfig, public_config, read_config
from lco_jax.models.omni import available_towers
from lco_jax.train import mesh as meshes
from lco_jax.train.assumed_batch import assume_batch
from lco_jax.train.objectives import make_loss, make_step, needs_head
from lco_jax.train.optimizer import make_optimizer
from lco_jax.train.steps import (
    TrainState,
)

_HEAD_TOKENS = 14
"""Of Qwen's chat template with its default system turn."""
_STEPS = 1000


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
            f"{config.data.batch_size} examples in {config.memory.encode_chunks} chunks; per "
            f"device and chunk {shape.rows} rows of {shape.row_tokens} tokens"
            + _describe_media(shape.media)
        ),
        **_describe_objective(config),
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
        model,
        ref.trainable,
        ref.dtype,
        towers=available_towers(model),
        with_head=needs_head(config.objective),
    )
    optimizer = make_optimizer(config.optimizer, config.num_steps or _STEPS, ref.trainable)
    everywhere = jax.NamedSharding(mesh, jax.P())
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
        trainable=trainable,
        frozen=frozen,
        opt_state=on_mesh(jax.eval_shape(optimizer.init, trainable)),
    )
    shape, batch = assume_batch(config, model, mesh)
    return AbstractRun(
        step=make_step(config, graph, optimizer),
        loss_fn=make_loss(config, graph),
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


def _describe_media(shape: MediaShape) -> str:
    if not shape.patch_rows:
        return ""
    return f", {shape.patch_rows} rows of {shape.frame_row} patches"


def _describe_objective(config: TrainConfig) -> dict[str, str]:
    match config.objective:
        case Contrastive():
            negatives = config.data.batch_size * (1 + config.data.num_negatives) - 1
            return {"negatives per anchor": f"{negatives:,}"}
        case Generative(max_response_tokens=most):
            return {
                "target tokens": f"up to {config.data.batch_size * most:,}; logits of about "
                f"{config.memory.head_tokens} tokens of a device at a time"
            }


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
