"""Mesh sizes and memory settings with which a config should fit a slice."""

import dataclasses
from collections.abc import Iterator

import jax

from lco_jax.config import MeshConfig, TrainConfig
from lco_jax.plan.abstract import abstract_run, saved_activations, shard_bytes
from lco_jax.plan.topologies import Topology
from lco_jax.runtime import mesh as meshes

_NUM_SUGGESTIONS = 3


def suggest(config: TrainConfig, topology: Topology) -> Iterator[str]:
    """Options that should fit, cheapest first: state and saved activations as written, and the
    workspace of two layers that keep everything. On the mesh of `config`, which does not fit, only
    options that take less than it.
    """
    found = 0
    available = topology.chip.hbm_bytes
    candidates = _meshes(config, len(topology.devices))
    config = dataclasses.replace(config, mesh=candidates[0])
    for mesh in candidates:
        on_mesh = dataclasses.replace(config, mesh=mesh)
        try:
            with jax.set_mesh(meshes.make_mesh(mesh, topology.devices)):
                run = abstract_run(on_mesh)
                state = run.state
                fixed = shard_bytes((state.trainable, state.frozen, state.opt_state, run.batch))
                if fixed > available:
                    continue
                workspace = _saved_bytes(on_mesh, remat="none", encode_chunks=1)
                workspace *= 2 / run.model.text.num_layers
                limit = available
                if on_mesh == config:
                    kept = shard_bytes(saved_activations(run))
                    limit = min(limit, fixed + kept + workspace / config.memory.encode_chunks)
                for remat, chunks in _memories(config):
                    saved = _saved_bytes(on_mesh, remat=remat, encode_chunks=chunks)
                    estimate = fixed + saved + workspace / chunks
                    memory = dataclasses.replace(config.memory, remat=remat, encode_chunks=chunks)
                    changed = dataclasses.replace(on_mesh, memory=memory)
                    if estimate < limit:
                        yield f"{options(config, changed)} (about {estimate / 1e9:.1f} GB)"
                        found += 1
                        break
        except ValueError:  # these sizes do not divide the model, or the batch is too small
            continue
        if found == _NUM_SUGGESTIONS:
            return


def _saved_bytes(config: TrainConfig, **memory) -> int:
    changed = dataclasses.replace(config.memory, **memory)
    return shard_bytes(saved_activations(abstract_run(dataclasses.replace(config, memory=changed))))


def _memories(config: TrainConfig) -> list[tuple[str, int]]:
    """Recomputation and encode chunks, from the fastest to the smallest."""
    chunks, batch_size = config.memory.encode_chunks, config.data.batch_size
    finer = [chunks * factor for factor in (1, 2, 4, 8) if batch_size % (chunks * factor) == 0]
    return [("dots", chunks), *(("full", number) for number in finer)]


def _meshes(config: TrainConfig, num_chips: int) -> list[MeshConfig]:
    """The present mesh, then more tensor parallelism, then more sharding of weights."""
    _, fsdp, tensor = config.mesh.resolve(num_chips)
    sizes = [(fsdp, tensor)]
    sizes += [(fsdp, size) for size in (2, 4, 8) if size > tensor]
    sizes += [(2**power, tensor) for power in range(1, 9) if 2**power > fsdp]
    return [
        dataclasses.replace(
            config.mesh, data=num_chips // (fsdp * tensor), fsdp=fsdp, tensor=tensor
        )
        for fsdp, tensor in sizes
        if num_chips % (fsdp * tensor) == 0
    ]


def options(config: TrainConfig, changed: TrainConfig) -> str:
    """What turns one config into the other, as options of the command line."""
    words = []
    for part in ("mesh", "memory"):
        old, new = getattr(config, part), getattr(changed, part)
        for field in dataclasses.fields(new):
            value = getattr(new, field.name)
            if value != getattr(old, field.name):
                values = value if isinstance(value, tuple) else (value,)
                name = field.name.replace("_", "-")
                words.append(f"--{part}.{name} {' '.join(map(str, values))}")
    return " ".join(words)
