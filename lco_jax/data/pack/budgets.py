"""Budgets of patches by the kind of a vision tower."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from lco_jax.data.encode.positions import Grid
from lco_jax.data.pack.patch_layout import PatchBudget, PatchLayout, coordinates_of
from lco_jax.models.config import DeepConfig, TileConfig, VisionConfig


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


class FrameBudget:
    """A budget of frames of any sizes, each in one piece of a row; as `PatchBudget` is one of
    frames that have windows, too.

    Args:
        frame_row: patches of a row.

    Raises:
        ValueError: `frame_row` does not consist of merge units.
    """

    def __init__(self, config: DeepConfig, frame_row: int):
        if frame_row % config.unit_patches:
            raise ValueError(
                f"frame_row={frame_row} must be a multiple of {config.unit_patches} patches, "
                "those of a merge unit"
            )
        self._config, self.frame_row = config, frame_row
        self._row_units = frame_row // config.unit_patches
        self._used: list[int] = []
        self._frames: list[tuple[Grid, int]] = []
        self._units: list[np.ndarray] = []

    @property
    def num_rows(self) -> int:
        """Rows that hold a patch."""
        return len(self._used)

    def add(
        self, grids: Sequence[Grid], max_rows: int | None = None
    ) -> Int32[np.ndarray, "n"] | None:
        """The places of the merge units of some grids, one grid after the other; None, and
        nothing has changed, if they do not all fit into `max_rows` rows.
        """
        used, frames = list(self._used), []
        units: list[np.ndarray] = [np.zeros(0, np.int32) for _ in grids]
        # Large frames first: small ones then fill the gaps.
        for index in sorted(range(len(grids)), key=lambda i: -grids[i].rows * grids[i].columns):
            grid = grids[index]
            count = grid.rows * grid.columns // self._config.unit_patches
            starts = [self._place_frame(count, used, max_rows) for _ in range(grid.frames)]
            if None in starts:
                return None
            frames += [(grid, start) for start in starts]
            units[index] = np.concatenate(
                [np.arange(start, start + count, dtype=np.int32) for start in starts]
            )
        self._used = used
        self._frames += frames
        self._units += units
        return np.concatenate([np.zeros(0, np.int32), *units])

    def _place_frame(self, count: int, used: list[int], max_rows: int | None) -> int | None:
        """Where a frame of so many units starts, in the fullest row that takes it; `used` tells how
        many units of each row are taken, and is updated.
        """
        fitting = [row for row, taken in enumerate(used) if taken + count <= self._row_units]
        row = max(fitting, key=lambda row: used[row], default=len(used))
        if row == len(used):
            if count > self._row_units or (max_rows is not None and row >= max_rows):
                return None
            used.append(0)
        used[row] += count
        return row * self._row_units + used[row] - count

    def layout(self, num_rows: int | None = None) -> PatchLayout:
        """The layout of all that was added, in `num_rows` rows (None: as few as are used).

        Raises:
            ValueError: more rows are used.
        """
        num_rows = self.num_rows if num_rows is None else num_rows
        if self.num_rows > num_rows:
            raise ValueError(
                f"{len(self._frames)} frames need {self.num_rows} rows of {self.frame_row} "
                f"patches and the budget has {num_rows}; raise it or put fewer media into a group"
            )
        unit = self._config.unit_patches
        frames = np.zeros(num_rows * self.frame_row, np.int32)
        coordinates = np.zeros((len(frames), 4), np.int32)
        for number, (grid, start) in enumerate(self._frames, 1):
            own = slice(start * unit, start * unit + grid.rows * grid.columns)
            frames[own] = number
            coordinates[own, :2] = coordinates_of(grid, self._config).reshape(-1, 2)
            coordinates[own, 2:] = grid.rows, grid.columns
        units = np.concatenate([np.zeros(0, np.int32), *self._units])
        return PatchLayout(None, frames.reshape(num_rows, self.frame_row), coordinates, units)


Budget = PatchBudget | FrameBudget | TileBudget


def open_budget(
    config: VisionConfig | DeepConfig | TileConfig, frame_row: int, *, flows: bool = False
) -> Budget:
    """An empty budget.

    Args:
        frame_row: patches of a row.
        flows: a row holds many frames, each about in one piece.

    Raises:
        ValueError: the tower takes no such rows.
    """
    if not config.has_grids:
        return TileBudget(config)
    if config.has_windows:
        return PatchBudget(config, frame_row, flows=flows)
    return FrameBudget(config, frame_row)


def frame_rows_of(
    config: VisionConfig | DeepConfig | TileConfig | None, allowed: Sequence[int]
) -> tuple[int, ...]:
    """Of the allowed lengths of a row of patches, those that a tower may take; tiles have one."""
    if config is None or config.has_grids:
        return tuple(allowed)
    return (config.tile_patches,)
