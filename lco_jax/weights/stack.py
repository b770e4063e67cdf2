"""A stack of layers, from tensors of the hub to an array that lies on devices."""

import collections
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Shaped, UInt8

from lco_jax.weights.files import Pick
from lco_jax.weights.finite import copy_finite
from lco_jax.weights.layout import Layout
from lco_jax.weights.tables import Row

_ALIGNMENT = 64
"""Bytes, of buffers on XLA's CPU devices."""

Read = Callable[[Sequence[Pick]], list[np.ndarray]]
"""Reads parts of a tensor."""


class Scratch:
    """Memory that a thread uses again for each tensor: new memory costs as much as reading."""

    def __init__(self) -> None:
        self._own = threading.local()

    def take(self, num_bytes: int) -> UInt8[np.ndarray, "n"]:
        """What is free until the same thread asks again."""
        if len(getattr(self._own, "memory", ())) < num_bytes:
            self._own.memory = np.empty(num_bytes, np.uint8)
        return self._own.memory[:num_bytes] if num_bytes else np.empty(0, np.uint8)


def load_stack(
    row: Row, reads: Mapping[str, Read], wanted: jax.ShapeDtypeStruct, pool: ThreadPoolExecutor
) -> Shaped[Array, "*shape"]:
    """One parameter, whose layers are tensors of the hub, cast to the wanted dtype.

    Args:
        reads: of each layer, in order, by what errors call it; what one gives is used before the
            next.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    num_stacked = len(row.stack)
    sizes = row.layout.sizes(wanted.shape[num_stacked:])
    # Replicas of a shard are read once, and what several shards have of a tensor is, too.
    devices = wanted.sharding.addressable_devices_indices_map(wanted.shape)
    indices = {str(index): index for index in devices.values()}
    shards = {name: _empty_shard(index, wanted) for name, index in indices.items()}
    places: dict[int, list[tuple[np.ndarray, Pick]]] = collections.defaultdict(list)
    numbers = np.arange(len(reads)).reshape(wanted.shape[:num_stacked])
    for name, index in indices.items():
        shard = shards[name]
        targets = shard.reshape(-1, *shard.shape[num_stacked:])
        pick = partial(_pick, row.layout, sizes, index[num_stacked:])
        for target, number in zip(targets, numbers[index[:num_stacked]].flat, strict=True):
            places[number].append((target, pick))

    sources = list(reads.items())

    def fill(number: int) -> None:
        where, read = sources[number]
        targets, picks = zip(*places[number], strict=True)
        for target, part in zip(targets, read(picks), strict=True):
            copy_finite(target, part, where)

    list(pool.map(fill, places))
    array = jax.make_array_from_callback(wanted.shape, wanted.sharding, lambda i: shards[str(i)])
    # Host buffers of one stack are free before the next is read.
    return jax.block_until_ready(array)


def _pick(
    layout: Layout, sizes: Mapping[str, int], inner: tuple[slice, ...], tensor: np.ndarray
) -> np.ndarray:
    return layout.to_ours(tensor, sizes)[inner]


def _empty_shard(index: tuple[slice, ...], wanted: jax.ShapeDtypeStruct) -> np.ndarray:
    shape = [len(range(size)[part]) for size, part in zip(wanted.shape, index, strict=True)]
    return _aligned_empty(shape, wanted.dtype)


def _aligned_empty(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """A buffer that CPU devices take over without a copy, which would cost a second stack."""
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].view(dtype).reshape(shape)
