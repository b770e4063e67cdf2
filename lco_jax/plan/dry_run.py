"""What a run would take, found by compiling its real step on simulated devices."""

import math
import time

import jax

from lco_jax.config import MeshConfig, TrainConfig
from lco_jax.data.pack.media_batch import MediaShape
from lco_jax.objectives.traits import traits_of
from lco_jax.plan.abstract import (
    abstract_run,
    count,
    saved_activations,
    shard_bytes,
    text_table,
)
from lco_jax.runtime import mesh as meshes


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
        saved = saved_activations(run)
        start = time.perf_counter()
        run.step.lower(run.state, run.batch, run.preamble).compile()
        seconds = time.perf_counter() - start
    state, batch, shape = run.state, run.batch, run.shape
    rows = {
        "mesh": " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items()),
        "trainable parameters": f"{count(state.trainable):,}",
        "frozen parameters": f"{count(state.frozen):,}",
        "per device: trainable": _gigabytes(state.trainable),
        "per device: frozen": _gigabytes(state.frozen),
        "per device: optimizer": _gigabytes(state.opt_state),
        "per device: batch": _gigabytes(batch),
        "per device: gradients": _gigabytes(state.trainable),
        "per device: saved for the backward pass": _gigabytes(saved),
        "batch": (
            f"{config.data.batch_size} examples in {config.memory.encode_chunks} chunks; per "
            f"device and chunk {shape.rows} rows of {shape.row_tokens} tokens"
            + _describe_media(shape.media)
        ),
        **traits_of(config.objective).describe(config),
        "programs": f"1 compiled in {seconds:.1f} s; one more for each further batch shape",
    }
    return text_table("dry run", rows.items())


def _describe_media(shape: MediaShape) -> str:
    if not shape.patch_rows:
        return ""
    return f", {shape.patch_rows} rows of {shape.frame_row} patches"


def _gigabytes(shapes) -> str:
    return f"{shard_bytes(shapes) / 1e9:.3f} GB"
