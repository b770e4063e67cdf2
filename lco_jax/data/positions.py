"""The positions of tokens: pure numpy functions of the grids of images and clips."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from lco_jax.models.config import VisionConfig


class Grid(NamedTuple):
    """The size of an image or a clip in patches."""

    frames: int
    """Temporal patches: 1 for an image."""
    rows: int
    columns: int
    seconds_per_frame: float = 0.0
    """Time from one temporal patch to the next."""


def mrope_ids(
    parts: Sequence[int | Grid],
    config: VisionConfig,
    *,
    after_video: Literal["last", "extent"] = "last",
) -> Int32[np.ndarray, "S 3"]:
    """Time, height and width of each token of an item.

    Args:
        parts: the number of tokens of a run of text (or audio), or the grid of a medium.
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
        else:
            ids = _grid_ids(part, config)
            length = ids[:, 1:].max() + 1 if after_video == "extent" else ids.max() + 1
        pieces.append(start + ids)
        start += length
    return np.concatenate(pieces).astype(np.int32)


def _grid_ids(grid: Grid, config: VisionConfig) -> Int[np.ndarray, "n 3"]:
    # In float32 and in this order, so that the same ids are rounded down as in transformers.
    seconds = np.arange(grid.frames, dtype=np.float32) * np.float32(grid.seconds_per_frame)
    time = np.floor(seconds * np.float32(config.ids_per_second)).astype(np.int64)
    height = np.arange(grid.rows // config.merge_size)
    width = np.arange(grid.columns // config.merge_size)
    axes = np.meshgrid(time, height, width, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, 3)
