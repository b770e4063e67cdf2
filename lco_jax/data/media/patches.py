"""From frames of equal size to rows of patches, exactly as transformers does it."""

import functools
import math
from typing import NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Float32, UInt8

from lco_jax.data.media.config import MAX_ASPECT_RATIO, PixelConfig


class Patches(NamedTuple):
    """An image or a video as the vision tower reads it."""

    values: Float32[np.ndarray, "P C"]
    """Rows in the order (time, merge unit row, unit column, row in unit, column in unit); columns
    in the order (channel, frame of the patch, row, column)."""
    grid: tuple[int, int, int]
    """Patches along time, height and width."""


def smart_resize(
    height: int, width: int, unit_px: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Height and width in multiples of `unit_px`, within the bounds, of nearly the same shape.

    Very thin images may exceed `max_pixels`: no side becomes shorter than `unit_px`.

    Raises:
        ValueError: a side is empty, or one is more than 200 times the other.

    Source: transformers `smart_resize` (models/qwen2_vl); halves round to the even neighbour.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ValueError(
            f"an image of {width} x {height} pixels cannot be resized: sides must be at least 1 "
            f"and at most {MAX_ASPECT_RATIO} to 1; crop or pad it"
        )
    rounded_height = round(height / unit_px) * unit_px
    rounded_width = round(width / unit_px) * unit_px
    if rounded_height * rounded_width > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        return (
            max(unit_px, math.floor(height / shrink / unit_px) * unit_px),
            max(unit_px, math.floor(width / shrink / unit_px) * unit_px),
        )
    if rounded_height * rounded_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return (
            math.ceil(height * grow / unit_px) * unit_px,
            math.ceil(width * grow / unit_px) * unit_px,
        )
    return rounded_height, rounded_width


def patchify(frames: UInt8[np.ndarray, "T Y X 3"], config: PixelConfig) -> Patches:
    """Normalised patches of frames whose sides are multiples of `config.unit_px`.

    The last frame is repeated until frames fill their patches, so an image is a video of one frame.

    Raises:
        ValueError: no frames, or sides that are no such multiples.

    Source: transformers Qwen2VLImageProcessorPil.patchify, Qwen2VLVideoProcessor.patchify.
    """
    num_frames, height, width, _ = frames.shape
    if 0 in frames.shape or height % config.unit_px or width % config.unit_px:
        raise ValueError(
            f"frames of shape {frames.shape} cannot be cut into patches: expected at least one "
            f"frame, and sides that are multiples of {config.unit_px}"
        )
    missing = -num_frames % config.temporal_patch_size
    frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    # Bytes are put in order before they become floats: a quarter of the memory is moved.
    levels = rearrange(
        frames,
        "(t f) (gy my y) (gx mx x) c -> c (t gy gx my mx) (f y x)",
        f=config.temporal_patch_size,
        my=config.merge_size,
        mx=config.merge_size,
        y=config.patch_size,
        x=config.patch_size,
    )
    table = _normalised_levels(config.mean, config.std)
    values = np.empty((levels.shape[1], 3, levels.shape[2]), np.float32)
    for channel in range(3):
        values[:, channel] = table[channel][levels[channel]]
    grid = (
        len(frames) // config.temporal_patch_size,
        height // config.patch_size,
        width // config.patch_size,
    )
    return Patches(rearrange(values, "p c v -> p (c v)"), grid)


@functools.cache
def _normalised_levels(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[np.ndarray, "3 256"]:
    """What each of the 256 grey levels becomes, per channel."""
    # Rounded to float32 after the division by 255 and again after each step, like upstream.
    levels = (np.arange(256) * (1 / 255)).astype(np.float32)
    mean_, std_ = (np.array(values, np.float32)[:, None] for values in (mean, std))
    return (levels - mean_) / std_
