"""The fixed-shape arrays of a step: ragged items packed into rows, and where each item ended up."""

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt32

from lco_jax.data.records import Encoded

_ITEMS_PER_ROW = 3
"""Of mean length, that a row should hold at least: on texts best-fit packing then fills 95 % of the
slots (90 % with two), and attention, whose cost a token grows with the row, stays a few percent."""
_STREAM_WASTE = 0.03
"""Share of empty rows in a stream of batches that is not worth another program."""


class Shape(NamedTuple):
    """The size of the packed rows, the same for all chunks, data shards and processes of a step."""

    row_tokens: int
    rows: int
    """Of one chunk on one data shard."""


class Batch(NamedTuple):
    """What one process feeds to one step.

    The rows of a chunk belong to the local data shards in order, `shape.rows` each; so do its
    examples. An item lies in one row of its example's shard. The shared head is not in the rows:
    positions start behind it.
    """

    tokens: Int32[np.ndarray, "C B S"]
    segments: Int32[np.ndarray, "C B S"]
    """Number of the item that a token belongs to, unique in the global batch and independent of
    how it is packed; 0 is padding."""
    positions: Int32[np.ndarray, "C B S 3"]
    pool: Int32[np.ndarray, "C J I"]
    """Flat index, within the rows of the example's shard, of the last token of each item."""
    valid: Bool[np.ndarray, "C J I"]
    """False where an example has no such item; `pool` and `content` are 0 there."""
    content: UInt32[np.ndarray, "C J I 2"]
    """Content hash of each item, upper and lower half."""


def share_real_tokens(batch: Batch) -> float:
    """The share of the slots of all rows that hold a token."""
    return np.count_nonzero(batch.segments) / batch.segments.size


# ------------------------------------------------------------------------------------ shapes


def round_rows(rows: int) -> int:
    """The next number of rows of a grid with eight steps an octave, so that few shapes occur."""
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def measure(
    lengths: Int[np.ndarray, "C I J"], num_shards: int, row_tokens: Sequence[int]
) -> tuple[int, ...]:
    """What the items (length 0: absent) of a process ask of the shape of a step.

    Longest item, largest mean length of a shard, and for each allowed row length the rows that
    a shard needs (0 where the longest item does not fit). The element-wise maximum over processes
    is what the whole step asks.
    """
    shards = _split_shards(lengths, num_shards)
    longest = int(lengths.max())
    mean = max(-(-int(shard.sum()) // max(1, int(np.count_nonzero(shard)))) for shard in shards)
    rows = (
        max(_place(shard, size)[1] for shard in shards) if size >= longest else 0
        for size in row_tokens
    )
    return longest, mean, *rows


def choose_shape(demand: Sequence[int], row_tokens: Sequence[int]) -> Shape:
    """The shape of a step, from the maximum over processes of what `measure` gives.

    Rows are the shortest allowed ones that hold the longest item, and a few of mean length so that
    items fill each other's gaps.

    Raises:
        ValueError: the longest item fits no allowed row.
    """
    longest, mean, *rows = demand
    _check_fits(longest, row_tokens)
    choice = _choose_row(row_tokens, max(longest, _ITEMS_PER_ROW * mean))
    return Shape(row_tokens[choice], round_rows(rows[choice]))


def _check_fits(longest: int, row_tokens: Sequence[int]) -> None:
    if longest > row_tokens[-1]:
        raise ValueError(
            f"an item of {longest} tokens does not fit into rows of {row_tokens[-1]}; add a longer "
            "row to memory.row_tokens or lower data.max_text_tokens"
        )


def _choose_row(row_tokens: Sequence[int], wanted: int) -> int:
    """Index of the first allowed row of at least `wanted` tokens, or of the longest one."""
    return min(bisect.bisect_left(row_tokens, wanted), len(row_tokens) - 1)


# ----------------------------------------------------------------------------------- packing


def pack(
    encoded: Sequence[Encoded | None],
    numbers: Int[np.ndarray, "C I"],
    num_shards: int,
    shape: Shape,
    head_tokens: int,
) -> Batch:
    """The batch of the items in `encoded`, ordered by chunk, example and role (None: absent).

    `numbers` are the places of the examples in the global batch, `num_shards` the data shards of
    this process, `head_tokens` the length of the shared head.

    Raises:
        ValueError: a shard needs more rows than `shape` has.
    """
    chunks, examples = numbers.shape
    lengths = item_lengths(encoded).reshape(chunks, examples, -1)
    roles = lengths.shape[-1]
    starts = np.zeros((chunks * num_shards, examples // num_shards * roles), np.int64)
    for index, shard in enumerate(_split_shards(lengths, num_shards)):
        starts[index], rows = _place(shard, shape.row_tokens)
        if rows > shape.rows:
            raise ValueError(f"a shard needs {rows} rows of {shape.row_tokens}, more than {shape}")
    return _fill(
        encoded,
        starts.reshape(lengths.shape),
        numbers[..., None] * roles + np.arange(roles) + 1,
        num_shards,
        shape,
        head_tokens,
    )


def pack_stream(
    encoded: Sequence[Encoded],
    row_tokens: Sequence[int],
    tokens_per_shard: int,
    num_shards: int,
    head_tokens: int,
) -> Iterator[tuple[Batch, Int64[np.ndarray, "I"]]]:
    """Batches of one chunk and one role that hold all items once, for embedding.

    Each comes with the index in `encoded` of the item in each slot (-1: none). Most items share
    rows of one length, few long ones take longer rows; batches with rows of the same length have
    the same shape: at most `tokens_per_shard` tokens (but one row) on each shard, fewer if there
    are few items.

    Raises:
        ValueError: an item fits no allowed row.
    """
    if not encoded:
        return
    lengths = item_lengths(encoded)
    _check_fits(int(lengths.max()), row_tokens)
    usual = _choose_row(row_tokens, _ITEMS_PER_ROW * int(lengths.mean()))
    choices = np.array(
        [
            usual if length <= row_tokens[usual] else _choose_row(row_tokens, 2 * length)
            for length in lengths.tolist()
        ]
    )
    for choice in np.unique(choices):
        members = np.flatnonzero(choices == choice)
        yield from _pack_group(
            encoded, members, lengths, row_tokens[choice], tokens_per_shard, num_shards, head_tokens
        )


def item_lengths(encoded: Sequence[Encoded | None]) -> Int64[np.ndarray, "N"]:
    """The number of tokens of each item (absent: 0)."""
    return np.array([0 if item is None else len(item.tokens) for item in encoded], np.int64)


def _pack_group(
    encoded: Sequence[Encoded],
    members: Int64[np.ndarray, "N"],
    lengths: Int64[np.ndarray, "M"],
    row_tokens: int,
    tokens_per_shard: int,
    num_shards: int,
    head_tokens: int,
) -> Iterator[tuple[Batch, Int64[np.ndarray, "I"]]]:
    """The batches of the items `members`, in rows of `row_tokens`."""
    starts, total_rows = _place(lengths[members], row_tokens)
    needed_rows = -(-total_rows // num_shards)
    rows = _choose_stream_rows(needed_rows, max(1, tokens_per_shard // row_tokens))
    num_batches = -(-needed_rows // rows)
    shard_tokens = rows * row_tokens
    # A bound from the shortest item, not the largest count found: it varies less between calls.
    slots_per_shard = rows * int(row_tokens // lengths[members].min())
    order = np.argsort(starts, kind="stable")
    shard = starts[order] // shard_tokens
    slot = np.arange(len(order)) - np.searchsorted(shard, shard)
    indices = np.full((num_batches * num_shards, slots_per_shard), -1)
    indices[shard, slot] = members[order]
    own_starts = np.zeros_like(indices)
    own_starts[shard, slot] = starts[order] % shard_tokens
    for chosen, chosen_starts in zip(
        indices.reshape(num_batches, -1), own_starts.reshape(num_batches, -1), strict=True
    ):
        batch = _fill(
            [encoded[index] if index >= 0 else None for index in chosen.tolist()],
            chosen_starts[None, :, None],
            chosen[None, :, None] + 1,
            num_shards,
            Shape(row_tokens, rows),
            head_tokens,
        )
        yield batch, chosen


def _choose_stream_rows(needed_rows: int, most_rows: int) -> int:
    """Rows of each batch on a shard: as many as allowed, unless the last batch would be too empty.

    Many batches always take `most_rows`, so that calls of all sizes share one program.
    """
    largest = min(most_rows, round_rows(needed_rows))
    sizes = sorted({round_rows(rows) for rows in range(-(-largest // 2), largest)} | {largest})
    sizes = [rows for rows in reversed(sizes) if rows <= largest]
    total_rows = [-(-needed_rows // rows) * rows for rows in sizes]
    bound = max(min(total_rows), int(needed_rows * (1 + _STREAM_WASTE)))
    return next(rows for rows, total in zip(sizes, total_rows, strict=True) if total <= bound)


def _split_shards(lengths: Int[np.ndarray, "C I J"], num_shards: int) -> Int[np.ndarray, "G N"]:
    """The items of each chunk and data shard."""
    return lengths.reshape(lengths.shape[0] * num_shards, -1)


def _place(lengths: Int[np.ndarray, "N"], row_tokens: int) -> tuple[Int64[np.ndarray, "N"], int]:
    """Best-fit decreasing: where each item starts in the flattened rows, and the number of rows.

    Absent items (length 0) start at 0.
    """
    starts = np.zeros(len(lengths), np.int64)
    rows_with_space: list[list[int]] = [[] for _ in range(row_tokens + 1)]
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


def _fill(
    encoded: Sequence[Encoded | None],
    starts: Int64[np.ndarray, "C I J"],
    segments: Int64[np.ndarray, "C I J"],
    num_shards: int,
    shape: Shape,
    head_tokens: int,
) -> Batch:
    """The arrays of a batch whose items start at `starts` within the rows of their shard."""
    chunks, examples, _ = starts.shape
    lengths = item_lengths(encoded).reshape(starts.shape)
    valid = lengths > 0
    shard_starts = np.arange(chunks * num_shards) * (shape.rows * shape.row_tokens)
    example_starts = np.repeat(shard_starts, examples // num_shards).reshape(chunks, examples, 1)
    present = lengths[valid]
    within = np.arange(present.sum()) - np.repeat(np.cumsum(present) - present, present)
    target = np.repeat((starts + example_starts)[valid], present) + within

    size = (chunks, num_shards * shape.rows, shape.row_tokens)
    tokens, segment_ids, positions = (np.zeros(size, np.int32) for _ in range(3))
    tokens.flat[target] = np.concatenate([item.tokens for item in encoded if item is not None])
    segment_ids.flat[target] = np.repeat(segments[valid], present)
    positions.flat[target] = within + head_tokens

    content = np.array([0 if item is None else item.content for item in encoded], np.uint64)
    halves = np.stack([content >> np.uint64(32), content & np.uint64(0xFFFFFFFF)], axis=-1)
    return Batch(
        tokens=tokens,
        segments=segment_ids,
        positions=np.repeat(positions[..., None], 3, axis=-1),  # text: equal on all three axes
        pool=np.where(valid, starts + lengths - 1, 0).swapaxes(1, 2).astype(np.int32),
        valid=valid.swapaxes(1, 2),
        content=halves.reshape(*starts.shape, 2).swapaxes(1, 2).astype(np.uint32),
    )
