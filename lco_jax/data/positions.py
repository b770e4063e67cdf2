"""Where patches lie in a budget, what attends to what, and the positions of tokens.

Pure numpy functions of the grids of images and clips.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from lco_jax.data.audio_video import Turns, take_turns
from lco_jax.models.config import VisionConfig

WINDOW_ROW = 128
"""Patches of a row of window attention. It holds two full windows of the public towers; a single
one would leave more gaps, a longer row costs attention to what is masked."""


class Grid(NamedTuple):
    """The size of an image or a clip in patches."""

    frames: int
    """Temporal patches: 1 for an image."""
    rows: int
    columns: int
    seconds_per_frame: float = 0.0
    """Time from one temporal patch to the next."""


class SoundVideo(NamedTuple):
    """A video and its sound, whose tokens take turns."""

    grid: Grid
    num_audio_tokens: int
    seconds_per_turn: float
    """Of both; see `AudioConfig`."""


# ----------------------------------------------------------------------------------- patches


class PatchLayout(NamedTuple):
    """How the patches of some images and clips lie in the budget of a group.

    Window attention runs in short rows and frame attention in long rows of the same sequence. No
    window and no frame crosses the end of its row, and several share one, so the layers of the
    tower move no patch and attend to no more than a row.
    """

    windows: Int32[np.ndarray, "W S"]
    """The window of each patch, numbered from 1; 0 is padding."""
    frames: Int32[np.ndarray, "K T"]
    """The frame of each patch, numbered from 1; 0 is padding."""
    coordinates: Int32[np.ndarray, "P 2"]
    """Row and column of each patch in its frame."""
    units: Int32[np.ndarray, "n"]
    """The place among the budget's merge units of each merge unit of the grids, one grid after
    the other, frame by frame and row by row. There lies the feature of the unit, too."""

    def place(
        self, patches: Float[np.ndarray, "p C"], config: VisionConfig
    ) -> Float[np.ndarray, "P C"]:
        """A budget filled with the patches of the grids, which come in order of their units."""
        unit_patches, width = config.unit_patches, patches.shape[1]
        num_units = self.windows.size // unit_patches
        budget = np.zeros((num_units, unit_patches, width), patches.dtype)
        budget[self.units] = patches.reshape(-1, unit_patches, width)
        return budget.reshape(-1, width)


def choose_frame_row(grids: Sequence[Grid], allowed: Sequence[int], config: VisionConfig) -> int:
    """The first of the `allowed` row lengths (ascending, in patches) that holds every frame.

    Raises:
        ValueError: a frame fits into none.
    """
    shapes = {(grid.rows, grid.columns) for grid in grids}
    for frame_row in allowed:
        shapes = {shape for shape in shapes if not _fits(shape, frame_row, config)}
        if not shapes:
            return frame_row
    rows, columns = max(shapes)
    raise ValueError(
        f"a frame of {rows} x {columns} patches does not fit into rows of {allowed[-1]}; "
        "allow longer rows or fewer pixels"
    )


def lay_out(
    grids: Sequence[Grid], config: VisionConfig, frame_row: int, num_rows: int | None = None
) -> PatchLayout:
    """The layout of the grids in `num_rows` rows of `frame_row` patches (None: as few as found).

    Raises:
        ValueError: the grids do not fit, or `frame_row` does not consist of window rows.
    """
    if frame_row % WINDOW_ROW:
        raise ValueError(f"frame_row={frame_row} must be a multiple of {WINDOW_ROW} patches")
    row_units = WINDOW_ROW // config.unit_patches
    frames = [grid for grid in grids for _ in range(grid.frames)]
    windows = [_windows(grid.rows, grid.columns, config) for grid in frames]
    ends = np.cumsum([len(window) for window in windows], dtype=np.int64)
    units, window_ids, frame_ids = (np.zeros(ends[-1] if grids else 0, np.int64) for _ in range(3))
    used: list[list[int]] = []
    num_windows = 0
    # Large frames first: small ones then fill the gaps.
    for index in sorted(range(len(frames)), key=lambda index: -len(windows[index])):
        window = windows[index]
        own = slice(ends[index] - len(window), ends[index])
        starts = _place_frame(np.bincount(window), used, frame_row // WINDOW_ROW, row_units)
        if starts is None:
            raise ValueError(
                f"a frame of {frames[index].rows} x {frames[index].columns} patches does not fit "
                f"into a row of {frame_row}; choose_frame_row finds one that holds it"
            )
        units[own] = starts[window] + _rank(window)
        window_ids[own] = num_windows + window + 1
        frame_ids[own] = index + 1
        num_windows += len(starts)
    num_rows = len(used) if num_rows is None else num_rows
    if len(used) > num_rows:
        raise ValueError(
            f"{len(frames)} frames need {len(used)} rows of {frame_row} patches and the budget "
            f"has {num_rows}; raise it or put fewer media into a group"
        )

    num_units = num_rows * frame_row // config.unit_patches
    segments = np.zeros((2, num_units), np.int32)
    segments[:, units] = window_ids, frame_ids
    segments = np.repeat(segments, config.unit_patches, axis=1)
    coordinates = np.zeros((num_units, config.unit_patches, 2), np.int32)
    if grids:
        coordinates[units] = np.concatenate([_coordinates(grid, config) for grid in frames])
    return PatchLayout(
        windows=segments[0].reshape(-1, WINDOW_ROW),
        frames=segments[1].reshape(-1, frame_row),
        coordinates=coordinates.reshape(-1, 2),
        units=units.astype(np.int32),
    )


def _windows(rows: int, columns: int, config: VisionConfig) -> Int[np.ndarray, "n"]:
    """The window of each merge unit of a frame, numbered from 0."""
    side = config.window_px // (config.patch_px * config.merge_size)
    row, column = np.indices((rows // config.merge_size, columns // config.merge_size))
    across = -(-(columns // config.merge_size) // side)
    return (row // side * across + column // side).ravel()


def _rank(groups: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The number of earlier entries of the same group."""
    order = np.argsort(groups, kind="stable")
    ranks = np.empty_like(groups)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    return ranks


def _fits(shape: tuple[int, int], frame_row: int, config: VisionConfig) -> bool:
    sizes = np.bincount(_windows(*shape, config))
    row_units = WINDOW_ROW // config.unit_patches
    return _place_windows(sizes, [0] * (frame_row // WINDOW_ROW), row_units) is not None


def _place_frame(
    sizes: Int[np.ndarray, "w"], used: list[list[int]], num_window_rows: int, row_units: int
) -> Int[np.ndarray, "w"] | None:
    """Where each window of a frame starts, in the fullest frame row that takes all of them.

    `used` tells how many units are taken in the window rows of each frame row, and is updated.
    """
    fullest_first = sorted(range(len(used)), key=lambda row: -sum(used[row]))
    for row in (*fullest_first, len(used)):
        taken = list(used[row]) if row < len(used) else [0] * num_window_rows
        starts = _place_windows(sizes, taken, row_units)
        if starts is not None:
            used[row : row + 1] = [taken]
            return row * num_window_rows * row_units + starts
    return None


def _place_windows(
    sizes: Int[np.ndarray, "w"], taken: list[int], row_units: int
) -> Int[np.ndarray, "w"] | None:
    """Best fit decreasing: where each window starts within a frame row. `taken` is updated."""
    starts = np.empty_like(sizes)
    if sizes.sum() > len(taken) * row_units - sum(taken):
        return None
    for window in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[window])
        fitting = [row for row, units in enumerate(taken) if units + size <= row_units]
        if not fitting:
            return None
        row = max(fitting, key=taken.__getitem__)
        starts[window] = row * row_units + taken[row]
        taken[row] += size
    return starts


def _coordinates(frame: Grid, config: VisionConfig) -> Int[np.ndarray, "n u 2"]:
    """Row and column of each patch of a frame, by merge unit."""
    merge = config.merge_size
    indices = np.indices((frame.rows, frame.columns))
    blocks = indices.reshape(2, frame.rows // merge, merge, frame.columns // merge, merge)
    return blocks.transpose(1, 3, 2, 4, 0).reshape(-1, merge * merge, 2)


# ------------------------------------------------------------------------------------ tokens


def mrope_ids(
    parts: Sequence[int | Grid | SoundVideo],
    config: VisionConfig,
    *,
    after_video: Literal["last", "extent"] = "last",
) -> Int32[np.ndarray, "S 3"]:
    """Time, height and width of each token of an item.

    Args:
        parts: the number of tokens of a run of text or audio; the grid of an image or a video;
            or a video with its sound, which unlike a grid includes the tokens around it: the
            starts of vision and of audio share one position, and so do the two ends.
        after_video: text goes on behind the largest id of a video, as the models were trained;
            or, as transformers 5 does for VL, behind the larger of its height and width.

    Source: transformers Qwen2_5_VLModel.get_rope_index, and that of
    Qwen2_5OmniPreTrainedModelForConditionalGeneration.
    """
    pieces = [np.zeros((0, 3), np.int64)]
    start = 0
    for part in parts:
        if isinstance(part, int):
            ids = np.repeat(np.arange(part)[:, None], 3, axis=1)
            length = part
        elif isinstance(part, SoundVideo):
            turns = _turns(part, config)
            starts, ends = np.zeros((2, 3), np.int64), np.full((2, 3), turns.length + 1)
            ids = np.concatenate([starts, turns.ids + 1, ends])
            length = turns.length + 2
        else:
            ids = _grid_ids(part, config)
            length = ids[:, 1:].max() + 1 if after_video == "extent" else ids.max() + 1
        pieces.append(start + ids)
        start += length
    return np.concatenate(pieces).astype(np.int32)


def video_turns(video: SoundVideo, config: VisionConfig) -> Bool[np.ndarray, "n"]:
    """Which tokens between the starts and the ends of a video with sound stand for the video."""
    return _turns(video, config).is_video


def _turns(video: SoundVideo, config: VisionConfig) -> Turns:
    ids_per_turn = int(config.ids_per_second * video.seconds_per_turn)
    return take_turns(_grid_ids(video.grid, config), video.num_audio_tokens, ids_per_turn)


def _grid_ids(grid: Grid, config: VisionConfig) -> Int[np.ndarray, "n 3"]:
    # In float32 and in this order, so that the same ids are rounded down as in transformers.
    seconds = np.arange(grid.frames, dtype=np.float32) * np.float32(grid.seconds_per_frame)
    time = np.floor(seconds * np.float32(config.ids_per_second)).astype(np.int64)
    height = np.arange(grid.rows // config.merge_size)
    width = np.arange(grid.columns // config.merge_size)
    axes = np.meshgrid(time, height, width, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, 3)
