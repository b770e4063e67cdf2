"""What a data shard holds of items with media, and the shape that holds several such shards."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import Shape
from lco_jax.data.pack.budgets import Budget
from lco_jax.data.pack.media_batch import MediaShape
from lco_jax.data.pack.rounding import round_coarsely, round_rows
from lco_jax.data.pack.rows import lay

Kind = tuple[int, bool, bool, int]
"""The row of the vision tower that the largest frame takes (0: no images), whether there are
audio, whether there are media whose features are known, and the frames that a patch brings."""


_OPEN_BINS = 8
"""Shards that are filled at a time: with more, each is filled better and packing takes longer."""
ROW_STEP = 16
"""Rows through which items flow need have no usual length in jobs of several batches."""
_COSTLY_FLOWING_ROW = 4096
"""Tokens of a row in which attention takes about as long as all else, in the small models that
CPUs are for."""


@dataclass
class Bin:
    """The items of one data shard."""

    budget: Budget | None
    flows: bool = False
    """Whether its items run on from row to row."""
    members: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    num_chunks: int = 0
    num_known: int = 0

    @property
    def num_patch_rows(self) -> int:
        return self.budget.num_rows if self.budget else 0

    def num_rows(self, row_tokens: int) -> int:
        return lay(np.array(self.lengths, np.int64), row_tokens, self.flows)[1]

    def add(self, index: int, item: Encoded, limit: Shape | None) -> bool:
        """Take an item, unless the shard would hold more than `limit`."""
        if limit is not None and len(item.tokens) > limit.row_tokens:
            return False
        lengths = [*self.lengths, len(item.tokens)]
        num_chunks = self.num_chunks + sum(len(m.content.frames) for m in item.audios)
        num_known = self.num_known + sum(len(medium.places) for medium in item.known)
        if limit is not None:
            rows = lay(np.array(lengths, np.int64), limit.row_tokens, self.flows)[1]
            if rows > limit.rows or num_chunks > limit.media.audio_chunks:
                return False
            if num_known > limit.media.known_features:
                return False
        if self.budget is not None:
            grids = [medium.content.grid for medium in item.visuals]
            if self.budget.add(grids, limit and limit.media.patch_rows) is None:
                return False
        self.members.append(index)
        self.lengths, self.num_chunks, self.num_known = lengths, num_chunks, num_known
        return True


def largest_first(encoded: Sequence[Encoded], members: Sequence[int]) -> list[tuple[int, Encoded]]:
    """The members with their indices, by the number of their tokens."""
    items = [(index, encoded[index]) for index in members]
    return sorted(items, key=lambda item: -len(item[1].tokens))


def fill_up(
    items: Iterable[tuple[int, Encoded]], open_bin: Callable[[], Bin], limit: Shape
) -> tuple[list[Bin], list[Bin]]:
    """Bins within the limit that are each filled as long as items fit, and one for each item that
    is beyond it. Of items that come largest first, small ones fill the gaps.
    """
    bins: list[Bin] = []
    large: list[Bin] = []
    for index, item in items:
        if not any(part.add(index, item, limit) for part in bins[-_OPEN_BINS:]):
            part = open_bin()
            fitting = part.add(index, item, limit)
            if not fitting:
                part.add(index, item, None)
            (bins if fitting else large).append(part)
    return bins, large


def deal_evenly(items: Iterable[tuple[int, Encoded]], bins: Sequence[Bin], limit: Shape) -> bool:
    """Give each item to the emptiest of the bins that has room for it; whether all have found one.
    Of items that come largest first, all bins get about as many tokens.
    """
    num_tokens = [0] * len(bins)
    for index, item in items:
        emptiest_first = sorted(range(len(bins)), key=num_tokens.__getitem__)
        taker = next((at for at in emptiest_first if bins[at].add(index, item, limit)), None)
        if taker is None:
            return False
        num_tokens[taker] += len(item.tokens)
    return True


class Demand(NamedTuple):
    """What shards ask of the shape of their batch."""

    rows: int
    patch_rows: int
    audio_chunks: int
    known_features: int
    items: int

    @classmethod
    def of(cls, bins: Sequence[Bin], row_tokens: int) -> "Demand":
        """The most that any of the bins asks."""
        each = (
            (
                part.num_rows(row_tokens),
                part.num_patch_rows,
                part.num_chunks,
                part.num_known,
                len(part.members),
            )
            for part in bins
        )
        return cls(*map(max, zip((0,) * len(cls._fields), *each, strict=True)))


def choose_flowing(tokens: int, shortest: int) -> int:
    """The length of the rows through which so many tokens flow: that with the fewest slots, if
    attention did not cost more a slot in longer rows.
    """
    return min(
        range(shortest, 2 * shortest, ROW_STEP),
        key=lambda row: round_rows(-(-tokens // row)) * row * (1 + row / _COSTLY_FLOWING_ROW),
    )


def round_up(kind: Kind, row_tokens: int, demand: Demand, *, several: bool) -> Shape:
    """A shape of few: finer for those that several batches share."""
    fine = round_rows if several else round_coarsely
    media = MediaShape(
        kind[0],
        fine(demand.patch_rows),
        round_coarsely(demand.audio_chunks),
        round_coarsely(demand.known_features),
        kind[-1],
    )
    return Shape(row_tokens, fine(demand.rows), media)
