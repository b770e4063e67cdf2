"""Where patches lie in a budget, and which of them attend to each other."""

import functools
import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64

from lco_jax.config.execution import FRAME_ROW_STEP
from lco_jax.data.encode.positions import Grid
from lco_jax.models.config import DeepConfig, TileConfig, VisionConfig

WINDOW_ROW = FRAME_ROW_STEP
"""Patches of a row of window attention. It holds two full windows of the public towers; a single
one would leave more gaps, a longer row costs attention to what is masked."""
_OPEN_WINDOW_ROWS = 4
"""Where frames are kept in one piece, the last so many rows of windows take the next frame."""


class PatchLayout(NamedTuple):
    """How the patches of some images and videos lie in the budget of a group.

    Window attention runs in short rows and frame attention in long rows of the same sequence. No
    window and no frame crosses the end of its row, and several share one, so the layers of the
    tower move no patch and attend to no more than a row.
    """

    windows: Int32[np.ndarray, "W S"] | None
    """The window of each patch, numbered from 1; 0 is padding (None: the tower has none)."""
    frames: Int32[np.ndarray, "K T"]
    """The frame of each patch, numbered from 1; 0 is padding."""
    coordinates: Int32[np.ndarray, "P X"] | None
    """Row and column of each patch in its frame, and of towers whose positions depend on it the
    frame's rows and columns (None: the tower does not ask)."""
    units: Int32[np.ndarray, "n"]
    """The place among the budget's merge units of each merge unit of the grids, one grid after
    the other, frame by frame and row by row. There lies the feature of the unit, too."""


class PatchBudget:
    """A budget that takes images and videos one by one, as long as they fit.

    Args:
        frame_row: patches of a row of frame attention.
        flows: a row holds many frames, each about in one piece: no window fills a gap far before.

    Raises:
        ValueError: `frame_row` does not consist of window rows.
    """

    def __init__(self, config: VisionConfig, frame_row: int, *, flows: bool = False):
        if frame_row % WINDOW_ROW:
            raise ValueError(f"frame_row={frame_row} must be a multiple of {WINDOW_ROW} patches")
        self._config, self.frame_row, self._flows = config, frame_row, flows
        self._used: list[_UsedRow] = []
        self._frames: list[tuple[Grid, np.ndarray, np.ndarray]] = []
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
        used = list(self._used)
        frames = []
        units: list[np.ndarray] = [np.zeros(0, np.int32) for _ in grids]
        # Large frames first: small ones then fill the gaps.
        for index in sorted(range(len(grids)), key=lambda i: -grids[i].rows * grids[i].columns):
            grid = grids[index]
            window, rank, sizes = _windows(grid.rows, grid.columns, self._config)
            first = len(frames)
            for _ in range(grid.frames):
                starts = self._place_frame(sizes, used, max_rows)
                if starts is None:
                    return None
                frames.append((grid, window, starts[window] + rank))
            own = [places for _, _, places in frames[first:]]
            units[index] = np.concatenate(own).astype(np.int32)
        self._used = used
        self._frames += frames
        self._units += units
        return np.concatenate([np.zeros(0, np.int32), *units])

    def layout(self, num_rows: int | None = None) -> PatchLayout:
        """The layout of all that was added, in `num_rows` rows (None: as few as are used).

        Raises:
            ValueError: more rows are used.
        """
        config = self._config
        num_rows = self.num_rows if num_rows is None else num_rows
        if self.num_rows > num_rows:
            raise ValueError(
                f"{len(self._frames)} frames need {self.num_rows} rows of {self.frame_row} "
                f"patches and the budget has {num_rows}; raise it or put fewer media into a group"
            )
        num_units = num_rows * self.frame_row // config.unit_patches
        segments = np.zeros((2, num_units), np.int32)
        coordinates = np.zeros((num_units, config.unit_patches, 2), np.int32)
        num_windows = 0
        for number, (grid, window, places) in enumerate(self._frames, 1):
            segments[0, places] = num_windows + window + 1
            segments[1, places] = number
            coordinates[places] = coordinates_of(grid, config)
            num_windows += int(window.max()) + 1
        segments = np.repeat(segments, config.unit_patches, axis=1)
        return PatchLayout(
            windows=segments[0].reshape(-1, WINDOW_ROW),
            frames=segments[1].reshape(-1, self.frame_row),
            coordinates=coordinates.reshape(-1, 2),
            units=np.concatenate([np.zeros(0, np.int32), *self._units]),
        )

    def _place_frame(
        self, sizes: tuple[int, ...], used: list["_UsedRow"], max_rows: int | None
    ) -> Int[np.ndarray, "w"] | None:
        """Where each window of a frame starts, in the fullest row that takes all of them.

        `used` is updated.
        """
        row_units = WINDOW_ROW // self._config.unit_patches
        num_window_rows = self.frame_row // WINDOW_ROW
        most = num_window_rows * row_units - sum(sizes)
        with_room = (row for row, own in enumerate(used) if own.total <= most)
        candidates = sorted(with_room, key=lambda row: -used[row].total)
        if max_rows is None or len(used) < max_rows:
            candidates.append(len(used))
        for row in candidates:
            taken = used[row].taken if row < len(used) else (0,) * num_window_rows
            found = _place_windows(sizes, taken, row_units)
            if found is not None:
                starts, taken = found
                if self._flows:
                    taken = _closed(taken, row_units)
                used[row : row + 1] = [_UsedRow(sum(taken), taken)]
                return row * num_window_rows * row_units + starts
        return None


class _UsedRow(NamedTuple):
    """A row of frame attention that holds patches."""

    total: int
    """Its merge units that are taken."""
    taken: tuple[int, ...]
    """Those of each of its window rows."""


def _closed(taken: tuple[int, ...], row_units: int) -> tuple[int, ...]:
    """What is taken in window rows, of which only the last that are used, and those after them,
    take more.
    """
    used = max(row for row, units in enumerate(taken) if units) + 1
    closed = max(0, used - _OPEN_WINDOW_ROWS)
    return (row_units,) * closed + taken[closed:]


@functools.lru_cache(maxsize=4096)
def fits(grid: Grid, frame_row: int, config: VisionConfig | DeepConfig) -> bool:
    """Whether a row of `frame_row` patches holds a frame of the grid."""
    if not config.has_windows:
        return grid.rows * grid.columns <= frame_row
    sizes = _windows(grid.rows, grid.columns, config).sizes
    row_units = WINDOW_ROW // config.unit_patches
    empty = (0,) * (frame_row // WINDOW_ROW)
    return _place_windows(sizes, empty, row_units) is not None


def choose_frame_row(
    grids: Sequence[Grid], allowed: Sequence[int], config: VisionConfig | DeepConfig | TileConfig
) -> int:
    """The first of the `allowed` row lengths (ascending, in patches) that holds every frame; of
    tiles that of one.

    Raises:
        ValueError: a frame fits into none.
    """
    if not config.has_grids:
        return config.tile_patches
    shapes = {(grid.rows, grid.columns) for grid in grids}
    for frame_row in allowed:
        shapes = {shape for shape in shapes if not fits(Grid(1, *shape), frame_row, config)}
        if not shapes:
            return frame_row
    rows, columns = max(shapes)
    raise ValueError(
        f"a frame of {rows} x {columns} patches does not fit into rows of {allowed[-1]}; "
        "allow longer rows (memory.frame_rows) or fewer pixels (data.media)"
    )


class _Windows(NamedTuple):
    """How the merge units of a frame divide into windows."""

    of: Int[np.ndarray, "n"]
    """The window of each, numbered from 0."""
    rank: Int[np.ndarray, "n"]
    """The number of earlier ones of the same window."""
    sizes: tuple[int, ...]
    """Of the windows."""


@functools.lru_cache(maxsize=1024)
def _windows(rows: int, columns: int, config: VisionConfig) -> _Windows:
    """Those of a frame of so many patches."""
    side = config.window_px // (config.patch_px * config.merge_size)
    most = math.isqrt(WINDOW_ROW // config.unit_patches)
    if side > most:
        if len(config.full_layers) < config.num_layers:
            raise ValueError(
                f"windows of {side} x {side} merge units do not fit into rows of {WINDOW_ROW} "
                f"patches; window_size of the vision_config may be at most "
                f"{most * config.patch_px * config.merge_size}"
            )
        side = 1  # no layer looks at windows; the smallest find places everywhere
    row, column = np.indices((rows // config.merge_size, columns // config.merge_size))
    across = -(-(columns // config.merge_size) // side)
    of = (row // side * across + column // side).ravel()
    return _Windows(of, _rank(of), tuple(np.bincount(of).tolist()))


def _rank(groups: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The number of earlier entries of the same group."""
    order = np.argsort(groups, kind="stable")
    ranks = np.empty_like(groups)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    return ranks


@functools.lru_cache(maxsize=4096)  # images of a few sizes are most of a data set
def _place_windows(
    sizes: tuple[int, ...], taken: tuple[int, ...], row_units: int
) -> tuple[Int64[np.ndarray, "w"], tuple[int, ...]] | None:
    """Best fit decreasing: where each window starts within a frame row, and how many units are
    taken in its window rows then; None if it does not take all."""
    if sum(sizes) > len(taken) * row_units - sum(taken):
        return None
    starts, taken = np.empty(len(sizes), np.int64), list(taken)
    rows_with: list[list[int]] = [[] for _ in range(row_units + 1)]
    for row, units in enumerate(taken):  # ascending, and so a heap
        rows_with[units].append(row)
    for window in sorted(range(len(sizes)), key=lambda window: -sizes[window]):
        size = sizes[window]
        units = next((u for u in range(row_units - size, -1, -1) if rows_with[u]), None)
        if units is None:
            return None
        row = heapq.heappop(rows_with[units])
        starts[window] = row * row_units + units
        taken[row] = units + size
        heapq.heappush(rows_with[units + size], row)
    return starts, tuple(taken)


def coordinates_of(frame: Grid, config: VisionConfig | DeepConfig) -> Int32[np.ndarray, "n u 2"]:
    """Row and column of each patch of a frame, by merge unit."""
    return _coordinates(frame.rows, frame.columns, config.merge_size)


@functools.lru_cache(maxsize=1024)
def _coordinates(rows: int, columns: int, merge: int) -> Int32[np.ndarray, "n u 2"]:
    indices = np.indices((rows, columns), np.int32)
    blocks = indices.reshape(2, rows // merge, merge, columns // merge, merge)
    found = blocks.transpose(1, 3, 2, 4, 0).reshape(-1, merge * merge, 2)
    found.flags.writeable = False  # many share it
    return found
