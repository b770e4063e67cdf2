"""Budgets of patches by the kind of a vision tower."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from lco_jax.data.encode.positions import Grid
from lco_jax.data.pack.patch_layout import PatchBudget, PatchLayout
from lco_jax.models.config import TileConfig, VisionConfig


class TileBudget:
    """A budget of tiles, each in a row of its own; as `PatchBudget` is one of grids."""

    def __init__(self, config: TileConfig):
        self.frame_row = config.tile_patches
        self.num_rows = 0

    def add(
        self, grids: Sequence[Grid], max_rows: int | None = None
    ) -> Int32[np.ndarray, "n"] | None:
        """The places of the patches of some images; None, and nothing has changed, if their tiles
        do not fit into `max_rows` rows.
        """
        first = self.num_rows
        end = first + sum(grid.frames for grid in grids)
        if max_rows is not None and end > max_rows:
            return None
        self.num_rows = end
        return np.arange(first * self.frame_row, end * self.frame_row, dtype=np.int32)

    def layout(self, num_rows: int | None = None) -> PatchLayout:
        """The layout of all that was added, in `num_rows` rows (None: as few as are used).

        Raises:
            ValueError: more rows are used.
        """
        num_rows = self.num_rows if num_rows is None else num_rows
        if self.num_rows > num_rows:
            raise ValueError(
                f"{self.num_rows} tiles do not fit into {num_rows} rows of a budget; raise it or "
                "put fewer images into a group"
            )
        frames = np.zeros((num_rows, self.frame_row), np.int32)
        frames[: self.num_rows] = np.arange(1, self.num_rows + 1)[:, None]
        units = np.arange(self.num_rows * self.frame_row, dtype=np.int32)
        return PatchLayout(None, frames, None, units)


Budget = PatchBudget | TileBudget


def open_budget(config: VisionConfig | TileConfig, frame_row: int) -> Budget:
    """An empty budget.

    Args:
        frame_row: patches of a row.

    Raises:
        ValueError: the tower takes no such rows.
    """
    return PatchBudget(config, frame_row) if config.has_windows else TileBudget(config)


def frame_rows_of(
    config: VisionConfig | TileConfig | None, allowed: Sequence[int]
) -> tuple[int, ...]:
    """Of the allowed lengths of a row of patches, those that a tower may take; tiles have one."""
    if config is None or config.has_windows:
        return tuple(allowed)
    return (config.tile_patches,)
