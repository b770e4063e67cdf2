"""Which examples of a batch a process feeds."""

import numpy as np
from jaxtyping import Int64


def share_examples(
    batch_size: int, chunks: int, num_shards: int, process_index: int, process_count: int
) -> Int64[np.ndarray, "C I"]:
    """Places in the global batch of a process's examples, by encode chunk."""
    if num_shards % process_count:
        raise ValueError(
            f"{num_shards} data shards do not divide over {process_count} processes; choose mesh "
            "sizes data and fsdp whose product is a multiple of the number of processes"
        )
    unit = chunks * num_shards
    if batch_size % unit:
        below = batch_size // unit * unit
        sizes = f"{below} or {below + unit}" if below else f"{unit}"
        raise ValueError(
            f"batch_size={batch_size} does not divide over encode_chunks={chunks} times "
            f"{num_shards} data shards ({unit} in all); use a batch_size of {sizes}, or other "
            "encode_chunks or mesh sizes"
        )
    numbers = np.arange(batch_size).reshape(chunks, process_count, -1)
    return numbers[:, process_index]
