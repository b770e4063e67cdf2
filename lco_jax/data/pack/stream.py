"""Texts in batches for embedding: each once, in as few shapes as possible."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import (
    Batch,
    Shape,
    check_fits,
    choose_row,
    fill,
    item_lengths,
)
from lco_jax.data.pack.rounding import round_rows
from lco_jax.data.pack.rows import lay, place
from lco_jax.data.pack.shares import Agree, agree_alone

_ITEMS_PER_ROW = 3
"""Of mean length, that a row should hold at least: best-fit packing then fills 95 % of the slots
(90 % with two)."""
_ITEMS_PER_FLOWING_ROW = 2
"""Its length decides nothing but which items are too long, and what attention costs."""
_STREAM_WASTE = 0.03
"""Share of empty rows in a stream of batches that is not worth another program."""
Packed = tuple[Batch, Int64[np.ndarray, "I"]]
"""A batch, and the index of the item in each of its slots (-1: none)."""


class _Group(NamedTuple):
    """The texts of a process that share rows of one length."""

    members: Int64[np.ndarray, "N"]
    starts: Int64[np.ndarray, "N"]
    """Places in the rows of all batches, one behind the other."""
    rows: int
    """That a shard needs."""
    slots_per_row: int
    batch_rows: int = 0
    """Of a batch on a shard."""
    num_batches: int = 0


def pack_texts(
    encoded: Sequence[Encoded],
    row_tokens: Sequence[int],
    tokens_per_shard: int,
    num_shards: int,
    head_tokens: int,
    agree: Agree = agree_alone,
    *,
    flows: bool = False,
) -> Iterator[Packed]:
    """Batches of one chunk and one role that hold all texts once, for embedding.

    Each comes with the index in `encoded` of the item in each slot (-1: none). Most items share
    rows of one length, few long ones take longer rows; batches with rows of the same length have
    the same shape: at most `tokens_per_shard` tokens (but one row) on each shard, fewer if there
    are few items.

    Args:
        num_shards: that the texts of this process fill.
        agree: with the other processes, which get as many batches of the same shapes.
        flows: an item may run on into the next row of its shard, but is no longer than a row.

    Raises:
        ValueError: an item fits no allowed row.
    """
    lengths = item_lengths(encoded)
    mean = int(lengths.mean()) if len(lengths) else 0
    longest, mean = agree("lengths of texts", (int(lengths.max(initial=0)), mean))
    if not longest:
        return
    check_fits(longest, row_tokens)
    usual = choose_row(row_tokens, (_ITEMS_PER_FLOWING_ROW if flows else _ITEMS_PER_ROW) * mean)
    choices = np.array(
        [
            usual if length <= row_tokens[usual] else choose_row(row_tokens, 2 * length)
            for length in lengths.tolist()
        ]
    )
    groups = [
        _group(np.flatnonzero(choices == choice), lengths, size, num_shards, flows)
        for choice, size in enumerate(row_tokens)
    ]
    wanted = [(group.rows, group.slots_per_row) for group in groups]
    agreed = agree("rows of texts", tuple(itertools.chain(*wanted)))
    for number, (rows, slots) in enumerate(zip(agreed[::2], agreed[1::2], strict=True)):
        size = row_tokens[number]
        batch_rows = _choose_stream_rows(rows, max(1, tokens_per_shard // size)) if rows else 1
        group = groups[number]._replace(rows=rows, slots_per_row=slots, batch_rows=batch_rows)
        groups[number] = (_flow if flows else _part)(group, lengths, size, num_shards)
    counts = agree("batches of texts", tuple(group.num_batches for group in groups))
    for group, size, count in zip(groups, row_tokens, counts, strict=True):
        if count:
            group = group._replace(num_batches=count)
            yield from _pack_group(encoded, group, size, num_shards, head_tokens)


def _group(
    members: Int64[np.ndarray, "N"],
    lengths: Int64[np.ndarray, "M"],
    row_tokens: int,
    num_shards: int,
    flows: bool,
) -> _Group:
    own = lengths[members]
    starts, rows = lay(own, row_tokens, flows)
    # A bound from the shortest item, not the largest count found: it varies less between calls.
    slots = row_tokens / int(own.min()) if len(members) else 0
    slots = math.ceil(slots) if flows else math.floor(slots)
    return _Group(members, starts, -(-rows // num_shards), slots)


def _part(
    group: _Group, lengths: Int64[np.ndarray, "M"], row_tokens: int, num_shards: int
) -> _Group:
    """The group in batches of whole rows."""
    del lengths, row_tokens, num_shards
    return group._replace(num_batches=-(-group.rows // group.batch_rows))


def _flow(
    group: _Group, lengths: Int64[np.ndarray, "M"], row_tokens: int, num_shards: int
) -> _Group:
    """The group in batches through whose rows its texts flow: to place them, the rows of a shard
    are one. It may take a batch more than there seemed to be rows for.
    """
    starts, shards = place(lengths[group.members], group.batch_rows * row_tokens)
    return group._replace(starts=starts, num_batches=-(-shards // num_shards))


def _pack_group(
    encoded: Sequence[Encoded],
    group: _Group,
    row_tokens: int,
    num_shards: int,
    head_tokens: int,
) -> Iterator[Packed]:
    """The batches of some items, in rows of `row_tokens`."""
    members, starts = group.members, group.starts
    rows, num_batches = group.batch_rows, group.num_batches
    shard_tokens = rows * row_tokens
    order = np.argsort(starts, kind="stable")
    shard = starts[order] // shard_tokens
    slot = np.arange(len(order)) - np.searchsorted(shard, shard)
    indices = np.full((num_batches * num_shards, rows * group.slots_per_row), -1)
    indices[shard, slot] = members[order]
    own_starts = np.zeros_like(indices)
    own_starts[shard, slot] = starts[order] % shard_tokens
    for chosen, chosen_starts in zip(
        indices.reshape(num_batches, -1), own_starts.reshape(num_batches, -1), strict=True
    ):
        batch = fill(
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
