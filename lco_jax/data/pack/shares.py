"""Which examples of a batch a process feeds."""

import numpy as np
from jaxtyping import Int64

IDLE = -1
"""The number of a slot without an example."""


def share_examples(
    batch_size: int, chunks: int, num_shards: int, process_index: int, process_count: int
) -> Int64[np.ndarray, "C I"]:
    """Places in the global batch of a process's examples, by encode chunk.

    Where the batch does not divide evenly, some shards have an idle slot (`IDLE`).
    """
    if num_shards % process_count:
        raise ValueError(
            f"{num_shards} data shards do not divide over {process_count} processes; choose mesh "
            "sizes data and fsdp whose product is a multiple of the number of processes"
        )
    cells = chunks * num_shards
    if batch_size < cells:
        raise ValueError(
            f"batch_size={batch_size} is less than encode_chunks={chunks} times {num_shards} data "
            f"shards; use a batch_size of at least {cells}, or smaller encode_chunks or mesh sizes"
        )
    bounds = np.arange(cells + 1) * batch_size // cells
    slots = bounds[:-1, None] + np.arange(slots_per_cell(batch_size, cells))
    numbers = np.where(slots < bounds[1:, None], slots, IDLE)
    return numbers.reshape(chunks, process_count, -1)[:, process_index]


def slots_per_cell(batch_size: int, cells: int) -> int:
    """Slots for examples in each encode chunk of each data shard."""
    return -(-batch_size // cells)
