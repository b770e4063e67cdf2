"""Which items with media share batches, and in rows of which length their patches lie."""

from collections.abc import Sequence
from typing import NamedTuple

from lco_jax.data.encode.positions import Grid
from lco_jax.data.pack.budgets import open_budget
from lco_jax.data.pack.media_bins import Kind
from lco_jax.data.pack.patch_layout import WINDOW_ROW, fits
from lco_jax.data.pack.shares import Agree
from lco_jax.models.config import DeepConfig, VisionConfig

_MOST_TIMES_LONGER = 4
"""How much longer a row of patches may be than an image needs, so that attention stays cheap."""
_NEVER = 2**62


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


def tight_row(
    grids: Sequence[Grid], lengths: range, config: VisionConfig | DeepConfig, agree: Agree
) -> int:
    """Of the lengths of a row of patches, above the first and up to the end of the range, the one
    in which the frames of the grids take fewest slots.
    """
    candidates = range(lengths.stop, lengths.start, -WINDOW_ROW)
    slots = []
    for length in candidates:
        budget = open_budget(config, length)
        if all(fits(grid, length, config) for grid in grids):
            budget.add(grids)
            slots.append(length * budget.num_rows)
        else:
            slots.append(_NEVER)
    most = agree("slots of patches", tuple(slots))
    return min(zip(most, candidates, strict=True))[1]
