"""Items with media in batches for embedding: each once, in as few shapes as possible."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import Shape, check_fits, choose_row, fill
from lco_jax.data.pack.budgets import frame_rows_of, open_budget
from lco_jax.data.pack.media_batch import MediaPacker, MediaShape, patch_frames
from lco_jax.data.pack.media_bins import (
    ROW_STEP,
    Bin,
    Demand,
    Kind,
    choose_flowing,
    deal_evenly,
    fill_up,
    largest_first,
    round_up,
)
from lco_jax.data.pack.media_kinds import Members, agree_on_kinds, even_rows, join_all, join_few
from lco_jax.data.pack.patch_layout import choose_frame_row
from lco_jax.data.pack.rounding import round_coarsely
from lco_jax.data.pack.rows import lay
from lco_jax.data.pack.shares import Agree, agree_alone
from lco_jax.data.pack.stream import Packed
from lco_jax.models.config import ModelConfig

_SHORTEST_ITEM = 16
"""Tokens, by which the number of items of a shard is bounded: the prompt alone takes about as
many."""

_USUAL_SLOTS = 64
"""Items of a shard; a place that stays empty costs next to nothing."""


class MediaStream:
    """Packs the items of one job. Those of a kind share one shape, which the first pack that fills
    several batches decides.

    Args:
        row_tokens: allowed lengths of a row of tokens.
        frame_rows: allowed lengths of a row of patches.
        tokens_per_shard: of a batch on each data shard; a longer item has a batch of its own.
        patches_per_shard: likewise.
        num_shards: that the items of this process fill.
        agree: with the other processes, which get as many batches of the same shapes.
        flows: an item may run on into the next row of its shard, but is no longer than a row.
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
        agree: Agree = agree_alone,
        flows: bool = False,
    ):
        self._agree, self._flows = agree, flows
        self._config = config
        self._row_tokens = tuple(row_tokens)
        self._frame_rows = frame_rows_of(config.vision, frame_rows)
        self._tokens, self._patches = tokens_per_shard, patches_per_shard
        self._num_shards, self._head_tokens = num_shards, head_tokens
        self._packer = MediaPacker(config, frame_rows, one_by_one=True, flows=flows)
        self._row_of: dict[tuple, int] = {}
        """Where items flow, the length of the row of patches of each kind; see `_join`."""
        self._shapes: dict[Kind, Shape] = {}

    def pack(self, encoded: Sequence[Encoded]) -> Iterator[Packed]:
        """Batches of one chunk and one role that hold all items once.

        Raises:
            ValueError: an item fits no allowed row.
        """
        members: dict[Kind, list[int]] = {}
        for index, item in enumerate(encoded):
            members.setdefault(self._kind(item), []).append(index)
        kinds = agree_on_kinds(
            encoded,
            members,
            self._config.vision,
            self._frame_rows,
            num_shards=self._num_shards,
            agree=self._agree,
        )
        for _, longest, _ in kinds.values():
            check_fits(longest, self._row_tokens)
        several = sum(members.patches for members in kinds.values()) > self._patches
        is_tight = several and self._flows
        if is_tight and self._config.vision.has_grids:
            kinds = self._join(encoded, kinds)
        else:
            join_few(kinds, self._patches)
        for kind, (own, longest, _) in sorted(kinds.items()):
            row = self._row_tokens[choose_row(self._row_tokens, longest)]
            if is_tight:
                row = min(row, -(-longest // ROW_STEP) * ROW_STEP)
            yield from self._pack_kind(encoded, kind, own, row)

    def _kind(self, item: Encoded) -> Kind:
        grids = [medium.content.grid for medium in item.visuals]
        row = choose_frame_row(grids, self._frame_rows, self._config.vision) if grids else 0
        frames = patch_frames(item, self._config.vision)
        return row, bool(item.audios), bool(item.known), frames

    def _join(self, encoded: Sequence[Encoded], kinds: dict[Kind, Members]) -> dict[Kind, Members]:
        """The kinds, with images of all sizes side by side in one row a shard: as short a row as
        the fewest batches take.
        """
        found = {}
        for kind, members in sorted(join_all(kinds, self._patches).items()):
            row, rest = kind[0], kind[1:]
            if 0 < row <= self._patches:
                if self._row_of.get(rest, 0) < row:
                    row = self._shortest_row(encoded, kind, members)
                    (self._row_of[rest],) = self._agree("length of a row of patches", (row,))
                row = self._row_of[rest]
            found[row, *rest] = members
        return found

    def _shortest_row(self, encoded: Sequence[Encoded], kind: Kind, members: Members) -> int:
        """With which the members of this process are dealt evenly to as few batches as their
        patches fill, or to one more; else the longest.
        """
        shortest, *others = kind
        items = largest_first(encoded, members.own)
        fewest = max(1, -(-members.patches // self._patches))
        for num_batches in (fewest, fewest + 1):
            lengths = even_rows(members.patches, num_batches, shortest, self._patches)
            for length in lengths:
                kind = (length, *others)
                limit = self._limit(kind, self._row_tokens[-1])
                if self._deal(items, kind, num_batches, limit):
                    return length
        return lengths[-1]

    def _pack_kind(
        self, encoded: Sequence[Encoded], kind: Kind, members: list[int], row_tokens: int
    ) -> Iterator[Packed]:
        limit = self._shapes.get(kind) or self._limit(kind, row_tokens)
        bins, large, counts = self._into_batches(encoded, kind, members, limit)
        if counts[1] and kind in self._shapes:  # longer items than those that decided the shape
            limit = self._limit(kind, row_tokens)
            bins, large, counts = self._into_batches(encoded, kind, members, limit)
        num_batches, num_large = counts
        for batch, demand in self._batches(large, num_large, limit.row_tokens):
            shape = round_up(kind, limit.row_tokens, demand, several=False)
            yield self._fill(encoded, batch, kind, shape, demand.items)
        if not num_batches:
            return
        shape = self._shapes.get(kind)
        if shape != limit:
            bins = self._level(encoded, kind, bins, limit, num_batches)
        row, several = limit.row_tokens, num_batches > 1
        chooses = self._flows and several and shape != limit
        batches = self._batches(bins, num_batches, 1 if chooses else row)
        if shape != limit:
            most = Demand(*map(max, zip(*(demand for _, demand in batches), strict=True)))
            if chooses:
                row = choose_flowing(most.rows, row)
                most = most._replace(rows=-(-most.rows // row))
            shape = round_up(kind, row, most, several=several)
            if num_batches > 1:
                self._shapes[kind] = shape
        for batch, demand in batches:
            yield self._fill(encoded, batch, kind, shape, demand.items)

    def _into_batches(
        self, encoded: Sequence[Encoded], kind: Kind, members: Sequence[int], limit: Shape
    ) -> tuple[list[Bin], list[Bin], tuple[int, ...]]:
        """Shards within the limit, items beyond it, and how many batches both take."""
        bins, large = self._into_bins(encoded, kind, members, limit)
        own = tuple(-(-len(parts) // self._num_shards) for parts in (bins, large))
        return bins, large, self._agree("batches of media", own)

    def _batches(
        self, bins: Sequence[Bin], count: int, row_tokens: int
    ) -> list[tuple[Sequence[Bin], Demand]]:
        """The shards of each of so many batches, and what the batch asks of its shape."""
        if not count:
            return []
        starts = range(0, count * self._num_shards, self._num_shards)
        batches = [bins[start : start + self._num_shards] for start in starts]
        wanted = [value for batch in batches for value in Demand.of(batch, row_tokens)]
        agreed = iter(self._agree("shapes of media", tuple(wanted)))
        demands = zip(*[agreed] * len(Demand._fields), strict=True)
        return [(batch, Demand(*demand)) for batch, demand in zip(batches, demands, strict=True)]

    def _into_bins(
        self, encoded: Sequence[Encoded], kind: Kind, members: Sequence[int], limit: Shape
    ) -> tuple[list[Bin], list[Bin]]:
        """Shards within the limit, and items beyond it. Items that flow are dealt evenly to the
        shards of as few batches as possible: all batches share the shape of the fullest.
        """
        items = largest_first(encoded, members)
        bins, large = fill_up(items, functools.partial(self._bin, kind), limit)
        if not self._flows:
            return bins, large
        beyond = {index for part in large for index in part.members}
        items = [item for item in items if item[0] not in beyond]
        fewest = -(-sum(len(item.tokens) for _, item in items) // (limit.rows * limit.row_tokens))
        fewest, most = (-(-count // self._num_shards) for count in (fewest, len(bins)))
        for num_batches in range(fewest, most + 1):
            dealt = self._deal(items, kind, num_batches, limit)
            if dealt:
                return dealt, large
        return bins, large

    def _deal(
        self, items: Sequence[tuple[int, Encoded]], kind: Kind, num_batches: int, limit: Shape
    ) -> list[Bin] | None:
        """The shards of so many batches, about equally full; None if they do not take all."""
        bins = [self._bin(kind) for _ in range(num_batches * self._num_shards)]
        return bins if deal_evenly(items, bins, limit) else None

    def _level(
        self,
        encoded: Sequence[Encoded],
        kind: Kind,
        bins: list[Bin],
        limit: Shape,
        num_batches: int,
    ) -> list[Bin]:
        """As many batches of the fewest rows of patches, so that the last is not half empty."""
        if num_batches == 1:
            return bins
        num_shards = num_batches * self._num_shards
        members = [index for part in bins for index in part.members]
        fewest = -(-sum(part.num_patch_rows for part in bins) // num_shards)
        for patch_rows in range(fewest, limit.media.patch_rows):
            lower = limit._replace(media=limit.media._replace(patch_rows=patch_rows))
            found, large = self._into_bins(encoded, kind, members, lower)
            if not large and len(found) <= num_shards:
                return found
        return bins

    def _limit(self, kind: Kind, row: int) -> Shape:
        """What a shard may hold in rows of so many tokens."""
        frame_row, has_audio, has_known, frames = kind
        patch_rows = max(1, self._patches // frame_row) if frame_row else 0
        chunks = 0
        if has_audio:
            chunks = max(1, self._tokens // (self._config.audio.chunk_rows // 2))
        rows = max(1, self._tokens // row)
        num_known = rows * row if has_known else 0
        media = MediaShape(frame_row, patch_rows, chunks, num_known, frames)
        return Shape(row, rows, media)

    def _bin(self, kind: Kind) -> Bin:
        frame_row = kind[0]
        vision = self._config.vision
        budget = open_budget(vision, frame_row, flows=self._flows) if frame_row else None
        return Bin(budget, self._flows)

    def _fill(
        self,
        encoded: Sequence[Encoded],
        bins: Sequence[Bin],
        kind: Kind,
        shape: Shape,
        most_items: int,
    ) -> Packed:
        bins = [*bins, *(self._bin(kind) for _ in range(self._num_shards - len(bins)))]
        slots = shape.rows * shape.row_tokens // _SHORTEST_ITEM
        slots = max(min(slots, _USUAL_SLOTS), round_coarsely(most_items))
        indices = np.full((self._num_shards, slots), -1)
        starts = np.zeros_like(indices)
        for shard, part in enumerate(bins):
            count = len(part.members)
            indices[shard, :count] = part.members
            lengths = np.array(part.lengths, np.int64)
            starts[shard, :count], _ = lay(lengths, shape.row_tokens, self._flows)
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
