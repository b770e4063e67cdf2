"""What knows of processes: the share of each, and what they agree on."""

import collections
import contextlib
import functools
import hashlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lco_jax.runtime.axes import BATCH_AXES
from lco_jax.runtime.errors import LostProcessError
from lco_jax.runtime.mesh import num_shards

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


class DisagreementError(ValueError):
    """The processes of a run were started with different settings, data, weights or folders."""


class OtherProcessError(RuntimeError):
    """Another process could not go on, so this one did not either."""


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
        if not is_lost(error):
            raise
        first_line = next(iter(str(error).splitlines()), "")
        raise LostProcessError(
            f"another process of this run has failed or cannot be reached (seen by process "
            f"{jax.process_index()} of {jax.process_count()}: {first_line[:200]}); the same "
            "command on all hosts starts again from the last checkpoint"
        ) from error


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached."""
    several = jax.process_count() > 1
    return several and isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)


@dataclass(frozen=True)
class Share:
    """The part of every batch that a process feeds."""

    shards: tuple[int, ...]
    """Data shards that its devices hold, ascending; not always neighbours: on a torus the hosts
    are blocks of chips, which the mesh crosses."""
    num_shards: int
    """Of the whole mesh."""
    groups: tuple[tuple[int, ...], ...]
    """Those of its shards that the very same processes feed: these may exchange examples, since
    all who feed them know both."""


@functools.lru_cache(maxsize=8)
def shares_of(mesh: jax.sharding.Mesh) -> Mapping[int, Share]:
    """Which data shards each process feeds, by its index.

    Where a tensor axis crosses hosts, several processes hold a shard, and each of them feeds it.
    The devices need not be there: those that a compiler or a torus describes will do.
    """
    holders = _holders(mesh)
    found = {}
    for process in sorted(frozenset().union(*holders)):
        groups: dict[frozenset[int], list[int]] = {}
        for shard, own in enumerate(holders):
            if process in own:
                groups.setdefault(own, []).append(shard)
        shards = sorted(shard for group in groups.values() for shard in group)
        found[process] = Share(tuple(shards), len(holders), tuple(map(tuple, groups.values())))
    return found


def data_share(mesh: jax.sharding.Mesh) -> Share:
    """Which data shards this process feeds."""
    return shares_of(mesh)[jax.process_index()]


@functools.lru_cache(maxsize=8)
def partners(mesh: jax.sharding.Mesh) -> tuple[int, ...]:
    """The processes that prepare the same items as this one, which is among them; ascending: where
    a tensor axis crosses hosts, those with which it has a data shard in common.
    """
    found = {jax.process_index()}
    while more := set().union(*(own for own in _holders(mesh) if own & found)) - found:
        found |= more
    return tuple(sorted(found))


def common_shards(mesh: jax.sharding.Mesh) -> tuple[int, ...]:
    """The data shards whose items this process prepares: its own and its partners'; ascending."""
    own = set(partners(mesh))
    return tuple(shard for shard, holders in enumerate(_holders(mesh)) if holders & own)


def _holders(mesh: jax.sharding.Mesh) -> list[frozenset[int]]:
    """The processes that hold each data shard."""
    axes = [mesh.axis_names.index(axis) for axis in BATCH_AXES]
    by_shard = np.moveaxis(mesh.devices, axes, range(len(axes))).reshape(num_shards(mesh), -1)
    return [frozenset(device.process_index for device in devices) for devices in by_shard]


def to_global(
    mesh: jax.sharding.Mesh, tree: Any, specs: Any, shards: Sequence[int] | None = None
) -> Any:
    """Host-local numpy arrays as global arrays.

    Every process passes the pieces of some shards, its own among them, one behind the other along
    the dimension that lies on the batch axes; arrays without one are the same on all.

    Args:
        shards: whose pieces they are, in order (None: those of the process's `Share`).
    """
    share = data_share(mesh)
    shards = share.shards if shards is None else tuple(shards)

    def place(array: np.ndarray, spec: jax.P) -> jax.Array:
        sharding = jax.NamedSharding(mesh, spec)
        if BATCH_AXES not in tuple(spec):
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
        axis = tuple(spec).index(BATCH_AXES)
        piece = array.shape[axis] // len(shards)
        shape = list(array.shape)
        shape[axis] = piece * share.num_shards

        def find(index: tuple[slice, ...]) -> np.ndarray:
            own = shards.index((index[axis].start or 0) // piece)
            local = list(index)
            local[axis] = slice(own * piece, (own + 1) * piece)
            return array[tuple(local)]

        return jax.make_array_from_callback(tuple(shape), sharding, find)

    return jax.tree.map(place, tree, specs)


def own_pieces(mesh: jax.sharding.Mesh, array: jax.Array) -> np.ndarray:
    """The pieces of `common_shards` of an array that lies on the batch axes along its first
    dimension, and nothing else on others. All processes call it together.
    """
    if array.is_fully_addressable:
        return np.asarray(array)
    holders = {frozenset(holders) for holders in _holders(mesh)}
    if sum(map(len, holders)) > jax.process_count():  # partners that hold different shards
        whole = multihost_utils.process_allgather(array, tiled=True)
        pieces = np.split(whole, num_shards(mesh))
        return np.concatenate([pieces[shard] for shard in common_shards(mesh)])
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


_TIMEOUT_S = 600.0
_START_TIMEOUT_S = 7200.0
"""One host may have to download a model that the others have; a dead one is noticed before."""
_times_asked: collections.Counter[str] = collections.Counter()


def gather(key: str, value: str, timeout_s: float = _TIMEOUT_S) -> list[str]:
    """What every process says, in their order, exchanged between hosts only.

    It runs beside computations (in the thread that feeds them), so it must not use devices. Every
    process asks under the same keys, under one key always in the same order. Of what was said
    nothing stays in the coordination service, since the last to have read it deletes it; of a key a
    barrier stays, so that keys are not numbered.
    """
    if jax.process_count() == 1:
        return [value]
    client = jax._src.distributed.global_state.client
    # A stage may ask under the keys of the one before. Times are counted for each key, since
    # threads that ask under different keys may be in any order.
    folder = f"lco_jax/{key}/{_times_asked[key]}"
    _times_asked[key] += 1
    client.key_value_set(f"{folder}/said/{jax.process_index():06d}", value)
    client.wait_at_barrier(
        f"lco_jax/{key}", round(1000 * timeout_s)
    )  # it serves again when all have left
    said = [text for _, text in sorted(client.key_value_dir_get(f"{folder}/said/"))]
    if client.key_value_increment(f"{folder}/readers", 1) == jax.process_count():
        client.key_value_delete(f"{folder}/")
    return said


def agree_max(key: str, values: tuple[int, ...]) -> tuple[int, ...]:
    """The element-wise maximum over all processes, exchanged as in `gather`."""
    said = gather(key, ",".join(map(str, values)))
    parts = [tuple(map(int, value.split(","))) for value in said]
    return tuple(max(column) for column in zip(*parts, strict=True))


def agree_same(facts: Mapping[str, str]) -> None:
    """Check that all processes say the same.

    Raises:
        DisagreementError: on all of them; it names the first process that differs, its host, and
            both values.
    """
    text = json.dumps(dict(facts), sort_keys=True)
    digests = gather("digest of facts", hashlib.blake2b(text.encode()).hexdigest())
    other = next((i for i, digest in enumerate(digests) if digest != digests[0]), None)
    if other is None:
        return
    shown = json.dumps([socket.gethostname(), dict(facts)])
    said = gather("facts", shown if jax.process_index() in (0, other) else "")
    (host, first), (other_host, second) = json.loads(said[0]), json.loads(said[other])
    differing = [name for name in first | second if first.get(name) != second.get(name)]
    lines = "".join(
        f"\n  {name}: {first.get(name)} on process 0, {second.get(name)} on process {other}"
        for name in differing
    )
    raise DisagreementError(
        f"process 0 on host {host} and process {other} on host {other_host} differ:{lines}\n"
        "start all processes with the same command, on the same data and weights"
    )


@contextlib.contextmanager
def all_or_none(occasion: str) -> Iterator[None]:
    """A context that all processes leave alike: where one raises, so do the others, at once.

    Inside, a process waits for no other.

    Raises:
        DisagreementError: bad usage (`ValueError`, `FileNotFoundError`) on another process.
        OtherProcessError: another process failed.
    """
    key = f"{occasion} done"
    try:
        yield
    except Exception as error:
        usage = isinstance(error, ValueError | FileNotFoundError)
        text = json.dumps([socket.gethostname(), usage, str(error)[:500]])
        gather(key, text, _START_TIMEOUT_S)
        raise
    for number, said in enumerate(gather(key, "", _START_TIMEOUT_S)):
        if said:
            host, usage, text = json.loads(said)
            kind = DisagreementError if usage else OtherProcessError
            raise kind(f"process {number} on host {host} cannot go on: {text}")


def wait_for_all(name: str) -> None:
    """Return when every process is here; `name` tells the occasions apart."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
