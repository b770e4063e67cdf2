"""Which items with media share batches, and in rows of which length their patches lie."""

from collections.abc import Mapping
from typing import NamedTuple

from lco_jax.data.pack.media_bins import Kind
from lco_jax.data.pack.patch_layout import WINDOW_ROW

_MOST_TIMES_LONGER = 4
"""How much longer a row of patches may be than an image needs, so that attention stays cheap."""


class Members(NamedTuple):
    """The items of a kind."""

    own: list[int]
    longest: int
    """Tokens of an item, on any process."""
    patches: int
    """Of a shard, on the process with most of them."""


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


def even_rows(patches: int, shortest: int, most_patches: int) -> range:
    """Lengths of a row that holds all patches of a batch, ascending: in the fewest batches that
    hold so many patches, from the length at which these would all be full.
    """
    num_batches = -(-patches // most_patches)
    even = -(-patches // (num_batches * WINDOW_ROW)) * WINDOW_ROW
    longest = max(shortest, most_patches // WINDOW_ROW * WINDOW_ROW)
    return range(min(max(even, shortest), longest), longest + 1, WINDOW_ROW)
