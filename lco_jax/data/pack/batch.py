"""The fixed-shape arrays of a step: ragged items packed into rows, and where each item ended up."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt32

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.media_batch import MediaBatch, MediaPacker, MediaShape
from lco_jax.data.pack.rounding import round_rows
from lco_jax.data.pack.rows import count_rows, place

_COSTLY_ROW = 32_768
"""Tokens of a row in which attention takes about as long as all else; less in shorter ones."""


class Shape(NamedTuple):
    """The size of the packed rows, the same for all chunks, data shards and processes of a step."""

    row_tokens: int
    rows: int
    """Of one chunk on one data shard."""
    media: MediaShape = MediaShape()

    def at_least(self, rows: int, patch_rows: int, audio_chunks: int) -> "Shape":
        """The same with more room, if there is less; none for media that are not there."""
        media = self.media
        if media.patch_rows:
            media = media._replace(patch_rows=max(media.patch_rows, patch_rows))
        if media.audio_chunks:
            media = media._replace(audio_chunks=max(media.audio_chunks, audio_chunks))
        return self._replace(rows=max(self.rows, rows), media=media)


class Batch(NamedTuple):
    """What one process feeds to one step.

    The rows of a chunk belong to the local data shards in order, `shape.rows` each; so do its
    examples. An item lies in one row of its example's shard, or runs on into the next where items
    flow (`pack_texts`). The shared head is not in the rows: positions start behind it.
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
    media: MediaBatch | None = None
    """None where no item of the global batch has any: then no tower runs."""
    targets: Int32[np.ndarray, "C B S"] | None = None
    """For each token the one that should follow it, -1 where none is learned (None: embedding)."""
    vocabulary: Int32[np.ndarray, "C V"] | None = None
    """Alignment: the tokens that features are told apart from, ascending; the same in all chunks
    and on all shards."""


# ------------------------------------------------------------------------------------ shapes


def measure(
    lengths: Int[np.ndarray, "C I J"], num_shards: int, row_tokens: Sequence[int]
) -> tuple[int, ...]:
    """What the items (length 0: absent) of a process ask of the shape of a step.

    Longest item, and for each allowed row length the rows that a shard needs (0 where the longest
    item does not fit). The element-wise maximum over processes is what the whole step asks.
    """
    longest = int(lengths.max())
    shards = split_shards(lengths, num_shards)
    rows = np.max([count_rows(shard, row_tokens) for shard in shards], axis=0)
    rows[np.array(row_tokens) < longest] = 0
    return longest, *rows.tolist()


def choose_shape(demand: Sequence[int], row_tokens: Sequence[int]) -> Shape:
    """The shape of a step, from the maximum over processes of what `measure` gives.

    Of the allowed rows that hold the longest item, those that cost least: that need the fewest
    slots, if attention did not cost more a slot in longer rows.

    Raises:
        ValueError: the longest item fits no allowed row.
    """
    longest, *rows = demand
    check_fits(longest, row_tokens)
    shapes = [
        Shape(size, round_rows(count))
        for size, count in zip(row_tokens, rows, strict=True)
        if size >= longest
    ]
    return min(
        shapes,
        key=lambda shape: shape.rows * shape.row_tokens * (1 + shape.row_tokens / _COSTLY_ROW),
    )


def check_fits(longest: int, row_tokens: Sequence[int]) -> None:
    if longest > row_tokens[-1]:
        raise ValueError(
            f"an item of {longest} tokens does not fit into rows of {row_tokens[-1]}; add a longer "
            "row to memory.row_tokens or lower data.max_text_tokens"
        )


def choose_row(row_tokens: Sequence[int], wanted: int) -> int:
    """Index of the first allowed row of at least `wanted` tokens, or of the longest one."""
    return min(bisect.bisect_left(row_tokens, wanted), len(row_tokens) - 1)


# ----------------------------------------------------------------------------------- packing


def pack(
    encoded: Sequence[Encoded | None],
    numbers: Int[np.ndarray, "C I"],
    num_shards: int,
    shape: Shape,
    head_tokens: int,
    packer: MediaPacker | None = None,
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
    for index, shard in enumerate(split_shards(lengths, num_shards)):
        starts[index], rows = place(shard, shape.row_tokens)
        if rows > shape.rows:
            raise ValueError(f"a shard needs {rows} rows of {shape.row_tokens}, more than {shape}")
    return fill(
        encoded,
        starts.reshape(lengths.shape),
        numbers[..., None] * roles + np.arange(roles) + 1,
        num_shards,
        shape,
        head_tokens,
        packer,
    )


def item_lengths(encoded: Sequence[Encoded | None]) -> Int64[np.ndarray, "N"]:
    """The number of tokens of each item (absent: 0)."""
    return np.array([0 if item is None else len(item.tokens) for item in encoded], np.int64)


def split_items(encoded: Sequence[Encoded | None], num_shards: int) -> list[list[Encoded]]:
    """The items that are there, of each chunk and data shard; `encoded` is ordered by them."""
    size = len(encoded) // num_shards
    return [
        [item for item in encoded[first : first + size] if item is not None]
        for first in range(0, len(encoded), size)
    ]


def split_shards(lengths: Int[np.ndarray, "C I J"], num_shards: int) -> Int[np.ndarray, "G N"]:
    """The items of each chunk and data shard."""
    return lengths.reshape(lengths.shape[0] * num_shards, -1)


def fill(
    encoded: Sequence[Encoded | None],
    starts: Int64[np.ndarray, "C I J"],
    segments: Int64[np.ndarray, "C I J"],
    num_shards: int,
    shape: Shape,
    head_tokens: int,
    packer: MediaPacker | None = None,
) -> Batch:
    """The arrays of a batch whose items start at `starts` within the rows of their shard.

    `encoded` is ordered as the entries of `starts` are, by chunk, example and role.
    """
    chunks, examples, _ = starts.shape
    lengths = item_lengths(encoded).reshape(starts.shape)
    valid = lengths > 0
    shard_starts = np.arange(chunks * num_shards) * (shape.rows * shape.row_tokens)
    example_starts = np.repeat(shard_starts, examples // num_shards).reshape(chunks, examples, 1)
    present = lengths[valid]
    within = np.arange(present.sum()) - np.repeat(np.cumsum(present) - present, present)
    item_starts = (starts + example_starts)[valid]
    target = np.repeat(item_starts, present) + within
    present_items = [item for item in encoded if item is not None]

    size = (chunks, num_shards * shape.rows, shape.row_tokens)
    tokens, segment_ids, positions = (np.zeros(size, np.int32) for _ in range(3))
    if present_items:
        tokens.reshape(-1)[target] = np.concatenate([item.tokens for item in present_items])
    segment_ids.reshape(-1)[target] = np.repeat(segments[valid], present)
    positions.reshape(-1)[target] = within + head_tokens
    positions = np.repeat(positions[..., None], 3, axis=-1)  # text: equal on all three axes
    for item, start in zip(present_items, item_starts.tolist(), strict=True):
        if item.positions is not None:
            own = slice(start, start + len(item.tokens))
            positions.reshape(-1, 3)[own] = item.positions + head_tokens
    targets = None
    if any(item.targets is not None for item in present_items):
        targets = np.full(size, -1, np.int32)
        targets.reshape(-1)[target] = np.concatenate([item.targets for item in present_items])
    media = None
    if packer is not None:
        shards = split_items(encoded, chunks * num_shards)
        ends = np.cumsum([len(items) for items in shards])
        media = packer.fill(shards, np.split(item_starts, ends[:-1]), shape.media, size)

    content = np.array([0 if item is None else item.hash for item in encoded], np.uint64)
    halves = np.stack([content >> np.uint64(32), content & np.uint64(0xFFFFFFFF)], axis=-1)
    return Batch(
        tokens=tokens,
        segments=segment_ids,
        positions=positions,
        pool=np.where(valid, starts + lengths - 1, 0).swapaxes(1, 2).astype(np.int32),
        valid=valid.swapaxes(1, 2),
        content=halves.reshape(*starts.shape, 2).swapaxes(1, 2).astype(np.uint32),
        media=media,
        targets=targets,
    )
