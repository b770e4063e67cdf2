"""Memory of large arrays that is used again instead of going back to the system.

The system clears every page that it gives to a process, which for the pixels of images, and again
for those of their batch, takes a good part of the time of decoding.
"""

import collections
import contextlib
import math
import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

_LEAST_BYTES = 1 << 18
"""Of an array; smaller ones do not go back to the system anyway."""
_MOST_IDLE_BYTES = 1 << 30
"""Kept while no array needs them."""
_SIZES_PER_DOUBLING = 8

_idle: dict[int, collections.deque[np.ndarray]] = {}
"""Memory that no array needs, by size. Threads and the collector of garbage may change it at any
time, each in one operation that nothing interrupts."""
_num_users = 0


@contextlib.contextmanager
def reusing_memory() -> Iterator[None]:
    """Within, `empty_array` takes the memory of arrays that nobody holds any more."""
    global _num_users
    _num_users += 1
    try:
        yield
    finally:
        _num_users -= 1
        if not _num_users:
            _idle.clear()


def empty_array(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array of any values. Its memory is used again when nobody holds it or a view of it."""
    dtype = np.dtype(dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    if not _num_users or num_bytes < _LEAST_BYTES:
        return np.empty(shape, dtype)
    size = _rounded_up(num_bytes)
    try:
        memory = _idle[size].pop()
    except (KeyError, IndexError):
        memory = np.empty(size, np.uint8)
    # The base of all views of it; of those of `memory` itself, that would be `memory`.
    lent = np.frombuffer(memoryview(memory), np.uint8, num_bytes)
    weakref.finalize(lent, _give_back, memory).atexit = False
    return lent.view(dtype).reshape(shape)


def _give_back(memory: np.ndarray) -> None:
    idle = sum(size * len(own) for size, own in list(_idle.items()))
    if _num_users and idle + memory.nbytes <= _MOST_IDLE_BYTES:
        _idle.setdefault(memory.nbytes, collections.deque()).append(memory)


def _rounded_up(num_bytes: int) -> int:
    """One of a few sizes, an eighth larger at most."""
    step = (1 << num_bytes.bit_length()) // (2 * _SIZES_PER_DOUBLING)
    return -(-num_bytes // step) * step
