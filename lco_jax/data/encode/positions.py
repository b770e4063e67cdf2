"""The positions of tokens: pure numpy functions of the grids of images and videos."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from lco_jax.data.encode.audio_video import Turns, take_turns
from lco_jax.models.config import DeepConfig, VisionConfig
from lco_jax.models.families import AfterVideo


class Grid(NamedTuple):
    """The size of an image or a video in patches."""

    frames: int
    """Temporal patches: 1 for an image."""
    rows: int
    columns: int
    seconds_per_frame: float = 0.0
    """Time from one temporal patch to the next."""
    times: tuple[float, ...] = ()
    """Of each temporal patch the seconds since the beginning of its video, where the model reads
    them as text before the patch: then each is a run of tokens of its own."""


class AudioVideo(NamedTuple):
    """A video and its audio, whose tokens take turns."""

    grid: Grid
    num_audio_tokens: int
    seconds_per_turn: float
    """Of both; see `AudioConfig`."""


def mrope_ids(
    parts: Sequence[int | Grid | AudioVideo],
    config: VisionConfig | DeepConfig,
    *,
    after_video: AfterVideo = "last",
) -> Int32[np.ndarray, "S 3"]:
    """Time, height and width of each token of an item.

    Args:
        parts: the number of tokens of a run of text or audio; the grid of an image or a video;
            or a video with its audio, which unlike a grid includes the tokens around it: the
            starts of vision and of audio share one position, and so do the two ends.
        after_video: text goes on behind the largest id of a video, as the models were trained;
            or, as transformers 5 does for VL, behind the larger of its height and width.

    Source: transformers Qwen2_5_VLModel.get_rope_index, Qwen3VLModel.get_rope_index, and that of
    Qwen2_5OmniPreTrainedModelForConditionalGeneration.
    """
    pieces: list[tuple[int, np.ndarray]] = []
    start = 0
    for part in parts:
        if isinstance(part, int):
            ids, length = np.broadcast_to(np.arange(part)[:, None], (part, 3)), part
        elif isinstance(part, AudioVideo):
            turns = _turns(part, config)
            starts, ends = np.zeros((2, 3), np.int64), np.full((2, 3), turns.length + 1)
            ids = np.concatenate([starts, turns.ids + 1, ends])
            length = turns.length + 2
        else:
            ids = _grid_ids(part, config)
            length = max(part.rows, part.columns) // config.merge_size
            if after_video == "last":
                length = max(length, int(ids[-1, 0]) + 1)
        pieces.append((start, ids))
        start += length
    found = np.empty((sum(len(ids) for _, ids in pieces), 3), np.int32)
    first = 0
    for start, ids in pieces:
        found[first : first + len(ids)] = ids
        found[first : first + len(ids)] += start
        first += len(ids)
    return found


def video_turns(video: AudioVideo, config: VisionConfig) -> Bool[np.ndarray, "n"]:
    """Which tokens between the starts and the ends of a video with audio stand for the video."""
    return _turns(video, config).is_video


def _turns(video: AudioVideo, config: VisionConfig) -> Turns:
    ids_per_turn = int(config.ids_per_second * video.seconds_per_turn)
    return take_turns(_grid_ids(video.grid, config), video.num_audio_tokens, ids_per_turn)


def _grid_ids(grid: Grid, config: VisionConfig | DeepConfig) -> Int[np.ndarray, "n 3"]:
    # In float32 and in this order, so that the same ids are rounded down as in transformers.
    seconds = np.arange(grid.frames, dtype=np.float32) * np.float32(grid.seconds_per_frame)
    time = np.floor(seconds * np.float32(config.ids_per_second)).astype(np.int64)
    frame = _frame_ids(grid.rows // config.merge_size, grid.columns // config.merge_size)
    if grid.frames == 1:
        return frame
    ids = np.tile(frame, (grid.frames, 1))
    ids[:, 0] = np.repeat(time, len(frame))
    return ids


@functools.lru_cache(maxsize=256)  # images of a few sizes are most of a data set
def _frame_ids(rows: int, columns: int) -> Int[np.ndarray, "n 3"]:
    """Of the tokens of a frame at time 0."""
    ids = np.moveaxis(np.indices((1, rows, columns)), 0, -1).reshape(-1, 3)
    ids.flags.writeable = False  # many share it
    return ids
