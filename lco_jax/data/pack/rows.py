"""Items in rows of one length: where each starts, and how many rows they take."""

import collections
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64


def place(lengths: Int[np.ndarray, "N"], row_tokens: int) -> tuple[Int64[np.ndarray, "N"], int]:
    """Best-fit decreasing: where each item starts in the flattened rows, and the number of rows.

    Absent items (length 0) start at 0.
    """
    starts = np.zeros(len(lengths), np.int64)
    rows_with_space: dict[int, list[int]] = collections.defaultdict(list)
    occupied = 0  # bit s is set while a row has s free tokens
    num_rows = 0
    order = np.argsort(-lengths, kind="stable")
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if not length:
            break
        fitting = occupied >> length
        if fitting:  # the row with the least space that suffices: the lowest bit
            space = length + (fitting & -fitting).bit_length() - 1
            row = rows_with_space[space].pop()
            if not rows_with_space[space]:
                occupied ^= 1 << space
        else:
            space, row = row_tokens, num_rows
            num_rows += 1
        starts[index] = row * row_tokens + row_tokens - space
        rows_with_space[space - length].append(row)
        occupied |= 1 << (space - length)
    return starts, num_rows


def lay(
    lengths: Int[np.ndarray, "N"], row_tokens: int, flows: bool
) -> tuple[Int64[np.ndarray, "N"], int]:
    """As `place`; or, if items may flow from row to row, all of them one behind the other."""
    if not flows:
        return place(lengths, row_tokens)
    ends = np.cumsum(lengths, dtype=np.int64)
    return ends - lengths, -(-int(ends[-1]) // row_tokens) if len(ends) else 0


def count_rows(lengths: Int[np.ndarray, "N"], sizes: Sequence[int]) -> list[int]:
    """How many rows of each size `place` takes (0 where the longest item does not fit).

    Where each item starts does not matter, and items of one length are counted together: they fill
    the row with the least space that suffices as far as they go, then the next.
    """
    groups = np.bincount(lengths)
    groups[:1] = 0
    present = np.flatnonzero(groups)[::-1]
    groups = list(zip(present.tolist(), groups[present].tolist(), strict=True))
    longest = groups[0][0] if groups else 0
    return [_count(groups, size) if size >= longest else 0 for size in sizes]


def _count(groups: Sequence[tuple[int, int]], row_tokens: int) -> int:
    """Rows of so many items of each length, longest first."""
    rows_with_space: dict[int, int] = {}
    occupied = num_rows = 0

    def leave(space: int, rows: int) -> None:
        nonlocal occupied
        rows_with_space[space] = rows_with_space.get(space, 0) + rows
        occupied |= 1 << space

    for length, count in groups:
        while count:
            fitting = occupied >> length
            if fitting:
                space = length + (fitting & -fitting).bit_length() - 1
                rows = rows_with_space.pop(space)
                occupied ^= 1 << space
            else:
                space, rows = row_tokens, -(-count // (row_tokens // length))
                num_rows += rows
            each = space // length
            full = min(rows, count // each)
            rest = count - full * each if full < rows else 0
            if full:
                leave(space - each * length, full)
            if rest:
                leave(space - rest * length, 1)
            untouched = rows - full - bool(rest)
            if untouched:
                leave(space, untouched)
            count -= full * each + rest
    return num_rows
