"""From frames of equal size to rows of patches, exactly as transformers does it."""

import math
from typing import NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Float32, UInt8, UInt32

from lco_jax.data.media.config import MAX_ASPECT_RATIO, PixelConfig
from lco_jax.runtime.buffers import empty_array


class Patches(NamedTuple):
    """An image or a video in bytes, as it travels to the device."""

    levels: UInt8[np.ndarray, "P C"]
    """Rows in the order (time, merge unit row, unit column, row in unit, column in unit); columns
    in the order (channel, frame of the patch, row, column). A still image has one frame a patch,
    which the vision tower sees as often as its patches have frames."""
    grid: tuple[int, int, int]
    """Patches along time, height and width."""
    statistics: Float32[np.ndarray, "2 3"]
    """Mean and standard deviation of each channel, of levels between 0 and 1."""


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
    """The patches of frames whose sides are multiples of `config.unit_px`.

    A single frame stays one; otherwise the last is repeated until frames fill their patches.

    Raises:
        ValueError: no frames, or sides that are no such multiples.

    Source: transformers Qwen2VLImageProcessorPil.patchify, Qwen2VLVideoProcessor.patchify.
    """
    num_frames, height, width, _ = frames.shape
    _check_sides(frames.shape, height, width, config)
    per_patch = 1 if num_frames == 1 else config.temporal_patch_size
    missing = -num_frames % per_patch
    if missing:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    levels = rearrange(
        frames,
        "(t f) (gy my y) (gx mx x) c -> (t gy gx my mx) (c f y x)",
        f=per_patch,
        my=config.merge_size,
        mx=config.merge_size,
        y=config.patch_size,
        x=config.patch_size,
    )
    return _patches(np.ascontiguousarray(levels), len(frames) // per_patch, height, width, config)


def patchify_words(words: UInt32[np.ndarray, "Y X"], config: PixelConfig) -> Patches:
    """What `patchify` makes of a still image, sooner, from words as Pillow holds pixels: bytes of
    red, green, blue and one without meaning.

    Pixels that lie in line in a patch are moved together; then each channel is taken out of words
    that lie in line as well.

    Raises:
        ValueError: sides that are no multiples of `config.unit_px`.
    """
    height, width = words.shape
    _check_sides(words.shape, height, width, config)
    side, merge = config.patch_size, config.merge_size
    rows, columns = height // config.unit_px, width // config.unit_px
    runs = np.ascontiguousarray(words).view(f"V{words.itemsize * side}")
    runs = runs.reshape(rows, merge, side, columns, merge).transpose(0, 3, 1, 4, 2)
    shape = (rows * columns * merge**2, side**2)
    # Words of the next channel begin a byte later, those of the last one end behind all pixels.
    moved = empty_array((words.nbytes + 2,), np.uint8)
    np.copyto(moved[:-2].view(runs.dtype).reshape(runs.shape), runs)
    levels = empty_array((shape[0], 3, shape[1]), np.uint8)
    for channel in range(3):
        words_of_channel = np.ndarray(shape, "<u4", moved, offset=channel)
        np.copyto(levels[:, channel], words_of_channel, casting="unsafe")  # the lowest byte
    return _patches(levels.reshape(len(levels), -1), 1, height, width, config)


def _check_sides(shape: tuple[int, ...], height: int, width: int, config: PixelConfig) -> None:
    if 0 in shape or height % config.unit_px or width % config.unit_px:
        raise ValueError(
            f"frames of shape {shape} cannot be cut into patches: expected at least one frame, and "
            f"sides that are multiples of {config.unit_px}"
        )


def _patches(
    levels: UInt8[np.ndarray, "P C"], frames: int, height: int, width: int, config: PixelConfig
) -> Patches:
    grid = (frames, height // config.patch_size, width // config.patch_size)
    return Patches(levels, grid, np.array([config.mean, config.std], np.float32))


def repeat_frames(
    levels: UInt8[np.ndarray, "P C"], frames: int, pixels: int
) -> UInt8[np.ndarray, "P D"]:
    """Patches of `frames` frames of so many `pixels`; those of a still image are repeated."""
    parts = levels.reshape(len(levels), 3, -1, pixels)
    if parts.shape[2] == frames:
        return levels
    return np.repeat(parts, frames, axis=2).reshape(len(levels), -1)


def pixel_values(
    levels: UInt8[np.ndarray, "P C"],
    statistics: Float32[np.ndarray, "2 3"],
    frames: int,
    pixels: int,
) -> Float32[np.ndarray, "P D"]:
    """Patches as transformers gives them to a vision tower, bit for bit: normalised, of `frames`
    frames of so many `pixels`. The device computes them itself: `lco_jax.models.pixels`.
    """
    # Rounded to float32 after the division by 255 and again after each step, like upstream.
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)
    table = (scaled - statistics[0][:, None]) / statistics[1][:, None]
    parts = repeat_frames(levels, frames, pixels).reshape(len(levels), 3, -1)
    return np.stack([table[c][parts[:, c]] for c in range(3)], 1).reshape(len(levels), -1)
