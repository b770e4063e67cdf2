"""Images as tiles of one size: the whole image in the first, its parts in the others."""

import math
from collections.abc import Sequence

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image

from lco_jax.data.media.images import resize

Size = tuple[int, int]
"""Height and width."""


def best_pinpoint(size: Size, pinpoints: Sequence[Size]) -> Size:
    """Of some sizes, the one in which an image of `size` keeps most of its pixels; of several such
    the one that leaves the least empty, and of these the first.

    Source: transformers `select_best_resolution` (image_processing_utils).
    """
    height, width = size

    def preference(pinpoint: Size) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return -kept, pinpoint[0] * pinpoint[1] - kept

    return min(pinpoints, key=preference)


def size_within(size: Size, pinpoint: Size) -> Size:
    """What an image of `size` is resized to, so that it fills a pinpoint in one direction.

    Source: transformers `get_patch_output_size` (image_processing_utils).
    """
    (height, width), (most_height, most_width) = size, pinpoint
    by_width, by_height = most_width / width, most_height / height
    if by_width < by_height:
        return min(math.ceil(height * by_width), most_height), most_width
    return most_height, min(math.ceil(width * by_height), most_width)


def image_tiles(
    image: Image.Image, tile_px: int, patch_px: int, pinpoint: Size
) -> UInt8[np.ndarray, "P C"]:
    """The patches of the tiles of an RGB image: of one into which all of it is squeezed, then of
    those of a pinpoint, in the middle of which it lies on black.

    Rows are in the order (tile, row, column), tiles row by row; columns in the order (channel, row,
    column) of a patch.

    Source: transformers LlavaNextImageProcessorPil.
    """
    inner = size_within((image.height, image.width), pinpoint)
    top, left = ((most - own) // 2 for most, own in zip(pinpoint, inner, strict=True))
    canvas = np.zeros((*pinpoint, 3), np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = resize(image, *inner)
    parts = rearrange(canvas, "(a y) (b x) c -> (a b) y x c", y=tile_px, x=tile_px)
    tiles = np.concatenate([resize(image, tile_px, tile_px)[None], parts])
    levels = rearrange(tiles, "n (gy y) (gx x) c -> (n gy gx) (c y x)", y=patch_px, x=patch_px)
    return np.ascontiguousarray(levels)


def unpadded(size: Size, shape: Size) -> tuple[slice, slice]:
    """The rows and columns of a map of `shape`, made of a pinpoint, that an image of `size` covers.
    Of an odd rest, one line of padding stays.

    Source: transformers `unpad_image` (models/llava_next).
    """
    (height, width), (rows, columns) = size, shape
    if width / height > columns / rows:
        padding = (rows - int(round(height * (columns / width), 7))) // 2
        return slice(padding, rows - padding), slice(0, columns)
    padding = (columns - int(round(width * (rows / height), 7))) // 2
    return slice(0, rows), slice(padding, columns - padding)
