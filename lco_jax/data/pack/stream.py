"""Texts in batches for embedding: each once, in as few shapes as possible."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import (
    ITEMS_PER_ROW,
    Batch,
    Shape,
    check_fits,
    choose_row,
    fill,
    item_lengths,
    place,
)
from lco_jax.data.pack.rounding import round_rows

_STREAM_WASTE = 0.03
"""Share of empty rows in a stream of batches that is not worth another program."""
Packed = tuple[Batch, Int64[np.ndarray, "I"]]
"""A batch, and the index of the item in each of its slots (-1: none)."""


def pack_texts(
    encoded: Sequence[Encoded],
    row_tokens: Sequence[int],
    tokens_per_shard: int,
    num_shards: int,
    head_tokens: int,
) -> Iterator[Packed]:
    """Batches of one chunk and one role that hold all texts once, for embedding.

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
    check_fits(int(lengths.max()), row_tokens)
    usual = choose_row(row_tokens, ITEMS_PER_ROW * int(lengths.mean()))
    choices = np.array(
        [
            usual if length <= row_tokens[usual] else choose_row(row_tokens, 2 * length)
            for length in lengths.tolist()
        ]
    )
    for choice in np.unique(choices):
        members = np.flatnonzero(choices == choice)
        yield from _pack_group(
            encoded, members, lengths, row_tokens[choice], tokens_per_shard, num_shards, head_tokens
        )


def _pack_group(
    encoded: Sequence[Encoded],
    members: Int64[np.ndarray, "N"],
    lengths: Int64[np.ndarray, "M"],
    row_tokens: int,
    tokens_per_shard: int,
    num_shards: int,
    head_tokens: int,
) -> Iterator[Packed]:
    """The batches of the items `members`, in rows of `row_tokens`."""
    starts, total_rows = place(lengths[members], row_tokens)
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
