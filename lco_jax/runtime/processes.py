"""What knows of processes: joining them, the share of each, and what they agree on."""

import collections
import contextlib
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lco_jax.runtime.axes import BATCH_AXES
from lco_jax.runtime.mesh import num_shards

log = logging.getLogger(__name__)


class LostProcessError(RuntimeError):
    """Another process of the run has died or cannot be reached."""


_LOST = (
    "Gloo",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "heartbeat",
    "Connection",
    "barrier",
)
"""What the errors of collectives and of the coordination service have in them then."""


class NoTpuError(ValueError):
    """`--tpu` was asked for on a machine without TPU devices."""


def start_tpu() -> None:
    """Join the other hosts of the slice and insist on TPU devices.

    Raises:
        NoTpuError: JAX finds no TPU; the message says what it found.
    """
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        # One host needs no coordinator; without a TPU environment there is none to be found.
        log.info("single-host run: %s", error)
    try:
        platform, devices = jax.default_backend(), jax.devices()
    except RuntimeError as error:
        raise NoTpuError(f"JAX cannot start a TPU backend: {error}") from error
    if platform != "tpu":
        kinds = sorted({device.device_kind for device in devices})
        raise NoTpuError(
            f"--tpu needs TPU devices, but JAX {jax.__version__} found {len(devices)} {platform} "
            f"device(s) ({', '.join(kinds)}). On a TPU VM install the extra: "
            "pip install -e '.[tpu]'; elsewhere leave --tpu out."
        )


@contextlib.contextmanager
def lost_processes_named() -> Iterator[None]:
    """A context whose errors of communication say what has happened and what to do.

    A process that hears of no error, because it waits on a TPU or for a barrier, is ended by JAX's
    coordination service, with a message of its own, when the heartbeats of the lost one stay away.

    Raises:
        LostProcessError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if jax.process_count() == 1 or not any(word in str(error) for word in _LOST):
            raise
        first_line = next(iter(str(error).splitlines()), "")
        raise LostProcessError(
            f"another process of this run has failed or cannot be reached (seen by process "
            f"{jax.process_index()} of {jax.process_count()}: {first_line[:200]}); the same "
            "command on all hosts starts again from the last checkpoint"
        ) from error


@dataclass(frozen=True)
class Share:
    """The part of every batch that a process feeds."""

    shards: tuple[int, ...]
    """Data shards that its devices hold, ascending; not always neighbours: on a torus the hosts
    are blocks of chips, which the mesh crosses."""
    num_shards: int
    """Of the whole mesh."""


@functools.lru_cache(maxsize=8)
def data_share(mesh: jax.sharding.Mesh) -> Share:
    """Which data shards this process feeds.

    Where a tensor axis crosses hosts, several processes hold a shard, and each of them feeds it.
    """
    shards = num_shards(mesh)
    sharding = jax.NamedSharding(mesh, jax.P(BATCH_AXES))
    slices = sharding.addressable_devices_indices_map((shards,)).values()
    return Share(tuple(sorted({part[0].start or 0 for part in slices})), shards)


@functools.lru_cache(maxsize=8)
def common_shards(mesh: jax.sharding.Mesh) -> tuple[int, ...]:
    """The data shards whose items this process prepares: its own and, where a tensor axis crosses
    hosts, those of the processes with which it has one in common; ascending.
    """
    holders = [
        {device.process_index for device in devices.flat}
        for devices in mesh.devices.reshape(num_shards(mesh), -1)
    ]
    together = {jax.process_index()}
    while more := set().union(*(own for own in holders if own & together)) - together:
        together |= more
    return tuple(shard for shard, own in enumerate(holders) if own & together)


def to_global(mesh: jax.sharding.Mesh, tree: Any, specs: Any) -> Any:
    """Host-local numpy arrays as global arrays.

    Every process passes the pieces of its own shards, in the order of its `Share`, one behind the
    other along the dimension that lies on the batch axes; arrays without one are the same on all.
    """
    share = data_share(mesh)

    def place(array: np.ndarray, spec: jax.P) -> jax.Array:
        sharding = jax.NamedSharding(mesh, spec)
        if BATCH_AXES not in tuple(spec):
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
        axis = tuple(spec).index(BATCH_AXES)
        piece = array.shape[axis] // len(share.shards)
        shape = list(array.shape)
        shape[axis] = piece * share.num_shards

        def find(index: tuple[slice, ...]) -> np.ndarray:
            own = share.shards.index((index[axis].start or 0) // piece)
            local = list(index)
            local[axis] = slice(own * piece, (own + 1) * piece)
            return array[tuple(local)]

        return jax.make_array_from_callback(tuple(shape), sharding, find)

    return jax.tree.map(place, tree, specs)


_TIMEOUT_MS = 600_000
_times_asked: collections.Counter[str] = collections.Counter()


def gather(key: str, value: str) -> list[str]:
    """What every process says, in their order, exchanged between hosts only.

    It runs beside computations (in the thread that feeds them), so it must not use devices. Every
    process asks under the same keys, under one key always in the same order.
    """
    if jax.process_count() == 1:
        return [value]
    client = jax._src.distributed.global_state.client
    # A stage may ask under the keys of the one before; barriers serve only once. They are counted
    # for each key, since threads that ask under different keys may be in any order.
    folder = f"lco_jax/{key}/{_times_asked[key]}"
    _times_asked[key] += 1
    client.key_value_set(f"{folder}/{jax.process_index():06d}", value)
    client.wait_at_barrier(f"{folder}/barrier", _TIMEOUT_MS)
    return [said for _, said in sorted(client.key_value_dir_get(folder))]


def agree_max(key: str, values: tuple[int, ...]) -> tuple[int, ...]:
    """The element-wise maximum over all processes, exchanged as in `gather`."""
    said = gather(key, ",".join(map(str, values)))
    parts = [tuple(map(int, value.split(","))) for value in said]
    return tuple(max(column) for column in zip(*parts, strict=True))


def wait_for_all(name: str) -> None:
    """Return when every process is here; `name` tells the occasions apart."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
