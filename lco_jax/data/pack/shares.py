"""Which examples of a batch, or items of a job, a process prepares."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

Agree = Callable[[str, tuple[int, ...]], tuple[int, ...]]
"""Element-wise maximum over all processes of a tuple; the string names the question."""

IDLE = -1
"""The number of a slot without an example."""


def check_batch_size(batch_size: int, chunks: int, num_shards: int) -> None:
    """Refuse a batch that does not give each encode chunk of each data shard an example.

    Raises:
        ValueError: it is too small.
    """
    cells = chunks * num_shards
    if batch_size < cells:
        ways = [f"a batch_size of at least {cells}"]
        ways += ["smaller encode_chunks"] if chunks > 1 else []
        ways += ["fewer data shards (a larger mesh.tensor)"] if num_shards > 1 else []
        raise ValueError(
            f"batch_size={batch_size} is less than encode_chunks={chunks} times {num_shards} data "
            f"shards; use {', or '.join(ways)}"
        )


def slots_per_cell(batch_size: int, cells: int) -> int:
    """Slots for examples in each encode chunk of each data shard."""
    return -(-batch_size // cells)


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
