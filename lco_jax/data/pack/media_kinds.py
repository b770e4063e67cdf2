"""Which items with media share batches, and in rows of which length their patches lie."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.media_bins import Kind
from lco_jax.data.pack.patch_layout import WINDOW_ROW
from lco_jax.data.pack.shares import Agree
from lco_jax.models.config import DeepConfig, TileConfig, VisionConfig

_MOST_TIMES_LONGER = 4
"""How much longer a row of patches may be than an image needs, so that attention stays cheap."""


class Members(NamedTuple):
    """The items of a kind."""

    own: list[int]
    longest: int
    """Tokens of an item, on any process."""
    patches: int
    """Of a shard, on the process with most of them."""


def agree_on_kinds(
    encoded: Sequence[Encoded],
    members: Mapping[Kind, list[int]],
    vision: VisionConfig | DeepConfig | TileConfig | None,
    frame_rows: Sequence[int],
    *,
    num_shards: int,
    agree: Agree,
) -> dict[Kind, Members]:
    """The kinds that any process has, of the `members` of this one.

    Args:
        frame_rows: allowed lengths of a row of patches.
        num_shards: that the items of this process fill.
    """
    either = (False, True)
    frames = sorted({1, vision.frames_per_patch}) if vision else ()
    visual = [(0, 0), *itertools.product(frame_rows, frames)]
    kinds = [
        (row, audio, known, count)
        for (row, count), audio, known in itertools.product(visual, either, either)
    ]
    wanted = []
    for kind in kinds:
        own = [encoded[index] for index in members.get(kind, ())]
        patches = sum(math.prod(medium.content.grid[:3]) for item in own for medium in item.visuals)
        longest = max((len(item.tokens) for item in own), default=0)
        wanted += [longest, patches // num_shards]
    agreed = agree("kinds of media", tuple(wanted))
    return {
        kind: Members(members.get(kind, []), longest, patches)
        for kind, longest, patches in zip(kinds, agreed[::2], agreed[1::2], strict=True)
        if longest
    }


def join_few(kinds: dict[Kind, Members], most_patches: int) -> None:
    """Let items that fill no batch of their own fill gaps between those with larger frames."""
    for kind in sorted(kinds):
        frame_row, *rest = kind
        larger = [
            row
            for row, *others in kinds
            if others == rest and frame_row < row <= _MOST_TIMES_LONGER * frame_row
        ]
        if larger and kinds[kind].patches < most_patches:
            few, target = kinds.pop(kind), kinds[min(larger), *rest]
            kinds[min(larger), *rest] = Members(
                target.own + few.own,
                max(target.longest, few.longest),
                target.patches + few.patches,
            )


def join_all(kinds: Mapping[Kind, Members], most_patches: int) -> dict[Kind, Members]:
    """The kinds, those whose frames fit into a batch of so many patches as one for each that has
    the same media otherwise: its row is that of the largest.
    """
    joined: dict[Kind, Members] = {}
    alike: dict[tuple, Kind] = {}
    for kind in sorted(kinds, reverse=True):
        target = kind
        if 0 < kind[0] <= most_patches:
            target = alike.setdefault(kind[1:], kind)
        own, before = kinds[kind], joined.get(target, Members([], 0, 0))
        joined[target] = Members(
            before.own + own.own, max(before.longest, own.longest), before.patches + own.patches
        )
    return joined


def even_rows(patches: int, num_batches: int, shortest: int, most_patches: int) -> range:
    """Lengths of a row that holds all patches of a batch, ascending: from that at which so many
    batches would all be full.
    """
    even = -(-patches // (num_batches * WINDOW_ROW)) * WINDOW_ROW
    longest = max(shortest, most_patches // WINDOW_ROW * WINDOW_ROW)
    return range(min(max(even, shortest), longest), longest + 1, WINDOW_ROW)
