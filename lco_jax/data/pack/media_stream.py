"""Items with media in batches for embedding: each once, in as few shapes as possible."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import Shape, check_fits, choose_row, fill, place
from lco_jax.data.pack.media_batch import MediaPacker, MediaShape
from lco_jax.data.pack.patch_layout import PatchBudget, choose_frame_row
from lco_jax.data.pack.rounding import round_coarsely, round_rows
from lco_jax.data.pack.stream import Packed
from lco_jax.models.config import ModelConfig

_OPEN_BINS = 8
"""Shards that are filled at a time: with more, each is filled better and packing takes longer."""
_SHORTEST_ITEM = 16
"""Tokens, by which the number of items of a shard is bounded: the prompt alone takes about as
many."""

_MOST_TIMES_LONGER = 4
"""How much longer a row of patches may be than an image needs, so that attention stays cheap."""

_USUAL_SLOTS = 64
"""Items of a shard; a place that stays empty costs next to nothing."""

_Kind = tuple[int, bool, bool]
"""The row of the vision tower that the largest frame takes (0: no images), whether there are
audio, and whether there are media whose features are known."""


class MediaStream:
    """Packs the items of one job. Those of a kind share one shape, which the first pack that fills
    several batches decides.

    Args:
        row_tokens: allowed lengths of a row of tokens.
        frame_rows: allowed lengths of a row of patches.
        tokens_per_shard: of a batch on each data shard; a longer item has a batch of its own.
        patches_per_shard: likewise.
    """

    def __init__(
        self,
        config: ModelConfig,
        row_tokens: Sequence[int],
        frame_rows: Sequence[int],
        *,
        tokens_per_shard: int,
        patches_per_shard: int,
        num_shards: int,
        head_tokens: int,
    ):
        self._config = config
        self._row_tokens, self._frame_rows = tuple(row_tokens), tuple(frame_rows)
        self._tokens, self._patches = tokens_per_shard, patches_per_shard
        self._num_shards, self._head_tokens = num_shards, head_tokens
        self._packer = MediaPacker(config, frame_rows)
        self._shapes: dict[_Kind, Shape] = {}

    def pack(self, encoded: Sequence[Encoded]) -> Iterator[Packed]:
        """Batches of one chunk and one role that hold all items once.

        Raises:
            ValueError: an item fits no allowed row.
        """
        kinds: dict[_Kind, list[int]] = {}
        for index, item in enumerate(encoded):
            check_fits(len(item.tokens), self._row_tokens)
            kinds.setdefault(self._kind(item), []).append(index)
        self._join_few(encoded, kinds)
        for kind, members in sorted(kinds.items()):
            # Large items first: small ones then fill the gaps.
            members.sort(key=lambda index: -len(encoded[index].tokens))
            yield from self._pack_kind(encoded, kind, members)

    def _kind(self, item: Encoded) -> _Kind:
        grids = [medium.content.grid for medium in item.visuals]
        row = choose_frame_row(grids, self._frame_rows, self._config.vision) if grids else 0
        return row, bool(item.audios), bool(item.known)

    def _join_few(self, encoded: Sequence[Encoded], kinds: dict[_Kind, list[int]]) -> None:
        """Let items that fill no batch of their own fill gaps between those with larger frames."""
        for kind in sorted(kinds):
            frame_row, *rest = kind
            larger = [
                row
                for row, *others in kinds
                if others == rest and frame_row < row <= _MOST_TIMES_LONGER * frame_row
            ]
            patches = sum(
                math.prod(medium.content.grid[:3])
                for index in kinds[kind]
                for medium in encoded[index].visuals
            )
            if larger and patches < self._patches * self._num_shards:
                kinds[min(larger), *rest] += kinds.pop(kind)

    def _pack_kind(
        self, encoded: Sequence[Encoded], kind: _Kind, members: list[int]
    ) -> Iterator[Packed]:
        limit = self._shapes.get(kind) or self._limit(kind, len(encoded[members[0]].tokens))
        bins, large = self._into_bins(encoded, kind, members, limit)
        if large and kind in self._shapes:  # longer items than those that decided the shape
            limit = self._limit(kind, len(encoded[members[0]].tokens))
            bins, large = self._into_bins(encoded, kind, members, limit)
        for first in range(0, len(large), self._num_shards):
            chosen = large[first : first + self._num_shards]
            yield self._fill(
                encoded, chosen, kind, self._smallest(chosen, limit.row_tokens, round_coarsely)
            )
        if not bins:
            return
        shape = self._shapes.get(kind)
        if shape != limit:
            bins = self._level(encoded, kind, bins, limit)
            several = len(bins) > self._num_shards
            shape = self._smallest(
                bins, limit.row_tokens, round_rows if several else round_coarsely
            )
            if several:
                self._shapes[kind] = shape
        for first in range(0, len(bins), self._num_shards):
            yield self._fill(encoded, bins[first : first + self._num_shards], kind, shape)

    def _into_bins(
        self, encoded: Sequence[Encoded], kind: _Kind, members: Sequence[int], limit: Shape
    ) -> tuple[list["_Bin"], list["_Bin"]]:
        """Shards within the limit, each filled as long as items fit; and items beyond it."""
        bins: list[_Bin] = []
        large: list[_Bin] = []
        for index in members:
            if not any(part.add(index, encoded[index], limit) for part in bins[-_OPEN_BINS:]):
                part = self._bin(kind)
                fitting = part.add(index, encoded[index], limit)
                if not fitting:
                    part.add(index, encoded[index], None)
                (bins if fitting else large).append(part)
        return bins, large

    def _level(
        self, encoded: Sequence[Encoded], kind: _Kind, bins: list["_Bin"], limit: Shape
    ) -> list["_Bin"]:
        """As many batches of the fewest rows of patches, so that the last is not half empty."""
        num_batches = -(-len(bins) // self._num_shards)
        if num_batches == 1:
            return bins
        num_shards = num_batches * self._num_shards
        members = sorted(
            (index for part in bins for index in part.members),
            key=lambda index: -len(encoded[index].tokens),
        )
        fewest = -(-sum(part.num_patch_rows for part in bins) // num_shards)
        for patch_rows in range(fewest, limit.media.patch_rows):
            lower = limit._replace(media=limit.media._replace(patch_rows=patch_rows))
            found, large = self._into_bins(encoded, kind, members, lower)
            if not large and len(found) <= num_shards:
                return found
        return bins

    def _limit(self, kind: _Kind, longest: int) -> Shape:
        """What a shard may hold."""
        frame_row, has_audio, has_known = kind
        row = self._row_tokens[choose_row(self._row_tokens, longest)]
        patch_rows = max(1, self._patches // frame_row) if frame_row else 0
        chunks = 0
        if has_audio:
            chunks = max(1, self._tokens // (self._config.audio.chunk_rows // 2))
        rows = max(1, self._tokens // row)
        media = MediaShape(frame_row, patch_rows, chunks, rows * row if has_known else 0)
        return Shape(row, rows, media)

    def _bin(self, kind: _Kind) -> "_Bin":
        frame_row = kind[0]
        return _Bin(PatchBudget(self._config.vision, frame_row) if frame_row else None)

    def _smallest(
        self, bins: Sequence["_Bin"], row_tokens: int, round_up: Callable[[int], int]
    ) -> Shape:
        """A shape that holds each of the bins."""
        frame_row = bins[0].budget.frame_row if bins[0].budget else 0
        media = MediaShape(
            frame_row,
            max(round_up(part.num_patch_rows) for part in bins),
            max(round_coarsely(part.num_chunks) for part in bins),
            max(round_coarsely(part.num_known) for part in bins),
        )
        return Shape(row_tokens, max(round_up(part.num_rows(row_tokens)) for part in bins), media)

    def _fill(
        self, encoded: Sequence[Encoded], bins: Sequence["_Bin"], kind: _Kind, shape: Shape
    ) -> Packed:
        bins = [*bins, *(self._bin(kind) for _ in range(self._num_shards - len(bins)))]
        slots = shape.rows * shape.row_tokens // _SHORTEST_ITEM
        slots = max(
            min(slots, _USUAL_SLOTS), round_coarsely(max(len(part.members) for part in bins))
        )
        indices = np.full((self._num_shards, slots), -1)
        starts = np.zeros_like(indices)
        for shard, part in enumerate(bins):
            count = len(part.members)
            indices[shard, :count] = part.members
            starts[shard, :count], _ = place(np.array(part.lengths, np.int64), shape.row_tokens)
        chosen = indices.reshape(-1)
        batch = fill(
            [encoded[index] if index >= 0 else None for index in chosen.tolist()],
            starts.reshape(1, -1, 1),
            chosen[None, :, None] + 1,
            self._num_shards,
            shape,
            self._head_tokens,
            self._packer,
        )
        return batch, chosen


@dataclass
class _Bin:
    """The items of one data shard."""

    budget: PatchBudget | None
    members: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    num_chunks: int = 0
    num_known: int = 0

    @property
    def num_patch_rows(self) -> int:
        return self.budget.num_rows if self.budget else 0

    def num_rows(self, row_tokens: int) -> int:
        return place(np.array(self.lengths, np.int64), row_tokens)[1]

    def add(self, index: int, item: Encoded, limit: Shape | None) -> bool:
        """Take an item, unless the shard would hold more than `limit`."""
        lengths = [*self.lengths, len(item.tokens)]
        num_chunks = self.num_chunks + sum(len(m.content.frames) for m in item.audios)
        if limit is not None:
            rows = place(np.array(lengths, np.int64), limit.row_tokens)[1]
            if rows > limit.rows or num_chunks > limit.media.audio_chunks:
                return False
        if self.budget is not None:
            grids = [medium.content.grid for medium in item.visuals]
            if self.budget.add(grids, limit and limit.media.patch_rows) is None:
                return False
        self.members.append(index)
        self.lengths, self.num_chunks = lengths, num_chunks
        self.num_known += sum(len(medium.places) for medium in item.known)
        return True
