"""The fastest settings for a slice and a batch: all are estimated, the most promising compiled."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import jax

from lco_jax.config import MeshConfig, TrainConfig
from lco_jax.data.pack.batch import Shape
from lco_jax.data.pack.patch_layout import WINDOW_ROW
from lco_jax.models.build import check_divides
from lco_jax.models.config import ModelConfig
from lco_jax.models.describe import describe_model
from lco_jax.objectives.traits import traits_of
from lco_jax.plan.abstract import count, model_sizes, text_table
from lco_jax.plan.assumed_batch import assume_shape, largest_image
from lco_jax.plan.estimate import Estimate, estimate
from lco_jax.plan.plan import Plan, make_plan
from lco_jax.plan.suggestions import options
from lco_jax.plan.topologies import Topology
from lco_jax.runtime import mesh as meshes
from lco_jax.train.manifest import underlying

_REMATS = ("none", "dots", "full")
_CHUNKS = (1, 2, 4, 8)
_TENSORS = (1, 2, 4, 8)
_BYTES_OF_TRAINED = 8
"""A weight and its gradient; the moments are divided among the data shards."""
_USABLE = 0.95
"""Of the memory, where it is only estimated."""


@dataclasses.dataclass(frozen=True)
class Found:
    """Settings, and what they promise."""

    config: TrainConfig
    options: str
    """What turns the given config into this one."""
    estimate: Estimate
    plan: Plan | None = None


def rank(config: TrainConfig, topology: Topology) -> list[Found]:
    """All settings that should fit, the fastest first: sizes of the mesh, recomputation, encode
    chunks, lengths of rows and of rows of patches.

    Raises:
        ValueError: the config does not fit the model.
    """
    chips = len(topology.devices)
    with jax.set_mesh(meshes.make_mesh(config.mesh, topology.devices)):
        model = describe_model(
            underlying(config.model),
            model_sizes(config),
            with_head=traits_of(config.objective).needs_head,
        )
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(model.frozen))
    state_bytes += _BYTES_OF_TRAINED * count(model.trainable)
    shapes: dict[tuple, Shape | None] = {}
    found = []
    for changed in _settings(config, model.read, chips):
        mesh, memory = changed.mesh, changed.memory
        shards = mesh.data * mesh.fsdp
        key = (shards, memory.encode_chunks, memory.row_tokens, memory.frame_rows)
        if key not in shapes:
            shapes[key] = _shape(changed, model.read, shards)
        if shapes[key] is None:
            continue
        guess = estimate(changed, topology, model.read, shapes[key], state_bytes)
        if guess.num_bytes < _USABLE * topology.chip.hbm_bytes:
            found.append(Found(changed, options(config, changed), guess))
    # Of equals the one that sends least, then the one that changes least.
    return sorted(
        found,
        key=lambda one: (
            round(one.estimate.step_s, 4),
            round(one.estimate.ici_s, 4),
            len(one.options),
        ),
    )


def search(config: TrainConfig, topology: Topology, num_compiled: int) -> Iterator[Found]:
    """The settings that rank first and fit, compiled one by one; each has another estimate, so
    that no two differ in name alone.

    Raises:
        ValueError: the config does not fit the model.
    """
    compiled, seen = 0, set()
    for one in rank(config, topology):
        if one.estimate in seen:
            continue
        seen.add(one.estimate)
        plan = make_plan(one.config, topology, advised=False)
        yield dataclasses.replace(one, plan=plan)
        compiled += plan.fits
        if compiled == num_compiled:
            return


def fastest(found: list[Found]) -> Found | None:
    """Of what was compiled and fits."""
    fitting = (one for one in found if one.plan.fits)
    return min(fitting, key=lambda one: one.plan.roofline.step_s, default=None)


def describe(found: list[Found], command: str) -> str:
    """What was compiled, and the command of the fastest."""
    rows = {}
    for one in found:
        times = one.plan.roofline
        rows[one.options or "as it is"] = (
            f"{times.step_s * 1e3:.0f} ms: compute {times.compute_s * 1e3:.0f}, memory "
            f"{times.hbm_s * 1e3:.0f}, links {times.ici_s * 1e3:.0f}; "
            f"{one.plan.mfu_bound:.0%} MFU at most, {one.plan.share_real_tokens:.0%} of slots real"
            if one.plan.fits
            else f"does not fit: {one.plan.problem}"
        )
    if best := fastest(found):
        rows["the fastest"] = f"{command} {best.options}".strip()
    return text_table("search", rows.items())


def _settings(config: TrainConfig, model: ModelConfig, chips: int) -> Iterator[TrainConfig]:
    memory = config.memory
    frame_rows = [memory.frame_rows]
    if model.vision is not None and model.vision.has_grids:
        grid = largest_image(config, model).grid
        tight = -(-grid.rows * grid.columns // WINDOW_ROW)  # with few more, its windows fit
        frame_rows += [((tight + more) * WINDOW_ROW,) for more in (0, 1, 2)]
    lengths = [memory.row_tokens, *((size,) for size in memory.row_tokens)]
    for mesh in _meshes(config.mesh, model, chips):
        for remat, chunks, rows, frames in itertools.product(_REMATS, _CHUNKS, lengths, frame_rows):
            if config.data.batch_size % chunks == 0:
                changed = dataclasses.replace(
                    memory, remat=remat, encode_chunks=chunks, row_tokens=rows, frame_rows=frames
                )
                yield dataclasses.replace(config, mesh=mesh, memory=changed)


def _meshes(given: MeshConfig, model: ModelConfig, chips: int) -> Iterator[MeshConfig]:
    spread = (2**power for power in range(int(math.log2(chips)) + 1))
    for fsdp, tensor in itertools.product(spread, _TENSORS):
        if chips % (fsdp * tensor):
            continue
        sizes = {"data": chips // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
        try:
            check_divides(model, sizes)
        except ValueError:
            continue
        yield dataclasses.replace(given, **sizes)


def _shape(config: TrainConfig, model: ModelConfig, num_shards: int) -> Shape | None:
    """What the packer makes of the batch; None where it cannot."""
    try:
        return assume_shape(config, model, num_shards)
    except ValueError:  # too few examples, or too short rows
        return None
