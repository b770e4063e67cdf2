"""Which examples of a batch, or items of a job, a process prepares."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

Agree = Callable[[str, tuple[int, ...]], tuple[int, ...]]
"""Element-wise maximum over all processes of a tuple; the string names the question."""

IDLE = -1
"""The number of a slot without an example."""


def share_examples(
    batch_size: int, chunks: int, num_shards: int, shards: Sequence[int]
) -> Int64[np.ndarray, "C I"]:
    """Places in the global batch of the examples of some data shards, by encode chunk.

    Where the batch does not divide evenly, some shards have an idle slot (`IDLE`).
    """
    cells = chunks * num_shards
    if batch_size < cells:
        raise ValueError(
            f"batch_size={batch_size} is less than encode_chunks={chunks} times {num_shards} data "
            f"shards; use a batch_size of at least {cells}, or smaller encode_chunks or mesh sizes"
        )
    bounds = _bounds(batch_size, cells)
    slots = bounds[:-1, None] + np.arange(slots_per_cell(batch_size, cells))
    numbers = np.where(slots < bounds[1:, None], slots, IDLE)
    by_shard = numbers.reshape(chunks, num_shards, -1)
    return by_shard[:, list(shards)].reshape(chunks, -1)


def _bounds(batch_size: int, cells: int) -> Int64[np.ndarray, "N"]:
    """Where the pieces of a batch for each encode chunk of each data shard begin and end."""
    return np.arange(cells + 1) * batch_size // cells


def slots_per_cell(batch_size: int, cells: int) -> int:
    """Slots for examples in each encode chunk of each data shard."""
    return -(-batch_size // cells)


def spread(kinds: Int64[np.ndarray, "I"], cells: int) -> Int64[np.ndarray, "I"]:
    """For each place in the global batch the number of its example, so that the encode chunks of
    the data shards (`cells`) hold about as many of each kind: examples with images take many times
    the room of others, and the fullest cell decides the shape of all.

    Args:
        kinds: of the examples, by number.
    """
    size = len(kinds)
    bounds = _bounds(size, cells)
    cell_of = np.searchsorted(bounds, np.arange(size), side="right") - 1
    within = np.arange(size) - bounds[cell_of]
    numbers = np.empty(size, np.int64)
    # Places round by round, one of each cell, take the examples kind by kind.
    numbers[np.lexsort((cell_of, within))] = np.argsort(kinds, kind="stable")
    return numbers


def deal(count: int, num_shards: int, shards: Sequence[int]) -> Int64[np.ndarray, "N"]:
    """The numbers of those of `count` items, ascending, that fall to some of the data shards.

    They are shuffled before, since items that take long may come at regular distances.
    """
    if len(shards) == num_shards:
        return np.arange(count)
    order = np.random.default_rng(count).permutation(count)
    return np.sort(order[np.isin(np.arange(count) % num_shards, shards)])


def agree_alone(key: str, values: tuple[int, ...]) -> tuple[int, ...]:
    """What a single process agrees on with itself."""
    return values
