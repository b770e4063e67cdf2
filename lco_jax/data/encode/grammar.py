"""The media grammar of a family: what an image is read as, how many tokens it becomes, and which
feature goes to which of them.

The class of a model's vision tower decides it. What is the same in all grammars: an image is one
run of one token, which the template writes once. Of videos, `Row` knows which are several.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int32
from PIL import Image

from lco_jax.config import MediaConfig
from lco_jax.data.encode.encoded import Visual
from lco_jax.data.encode.positions import Grid
from lco_jax.data.media.config import PixelConfig
from lco_jax.data.media.images import image_patches
from lco_jax.data.media.sources import MediaOptions
from lco_jax.data.media.tiles import Size, best_pinpoint, image_tiles, unpadded
from lco_jax.models.deep_config import DeepConfig
from lco_jax.models.tile_config import TileConfig
from lco_jax.models.tower_config import VisionConfig


class Largest(NamedTuple):
    """The image with most tokens that a model reads."""

    size_px: Size
    grid: Grid
    num_tokens: int


class Grammar(Protocol):
    """How images become tokens."""

    def read_image(self, image: Image.Image, pixels: PixelConfig, options: MediaOptions) -> Visual:
        """An image as the tower reads it, and as its tokens do.

        Args:
            image: in RGB.
            pixels: bounds and statistics of a run.
            options: what the image asks for instead.

        Raises:
            ValueError: the image asks for what the model does not do.
        """
        ...

    def largest(self, media: MediaConfig) -> Largest:
        """The image with most tokens that a run reads, nearly a square."""
        ...


class Grids:
    """An image is a grid of merge units of patches, each of which is a token."""

    def __init__(self, vision: VisionConfig | DeepConfig):
        self._vision = vision

    def read_image(self, image: Image.Image, pixels: PixelConfig, options: MediaOptions) -> Visual:
        """See `Grammar`."""
        patches = image_patches(image, options.of_pixels(pixels))
        return Visual(patches.levels, Grid(*patches.grid), patches.statistics)

    def largest(self, media: MediaConfig) -> Largest:
        """See `Grammar`."""
        merge = self._vision.merge_size
        unit_px = self._vision.patch_px * merge
        units = media.image_max_pixels // unit_px**2
        rows = math.isqrt(units)
        columns = units // rows
        grid = Grid(1, rows * merge, columns * merge)
        return Largest((rows * unit_px, columns * unit_px), grid, rows * columns)


class Tiles:
    """An image is tiles: one of the whole image, and those of the best of some sizes.

    Its tokens are the patches of the first tile; then line by line those of the others that the
    image covers, and after each line one that ends it.
    """

    def __init__(self, vision: TileConfig):
        self._vision = vision

    def read_image(self, image: Image.Image, pixels: PixelConfig, options: MediaOptions) -> Visual:
        """See `Grammar`."""
        vision, asked = self._vision, options
        if asked.min_pixels is not None or asked.max_pixels is not None:
            raise ValueError(
                f"min_pixels={asked.min_pixels}, max_pixels={asked.max_pixels}: the model cuts "
                "images into tiles of its own sizes; leave them out"
            )
        size = (image.height, image.width)
        pinpoint = best_pinpoint(size, vision.pinpoints)
        levels = image_tiles(image, vision.tile_px, vision.patch_px, pinpoint)
        grid = Grid(len(levels) // vision.tile_patches, vision.side_patches, vision.side_patches)
        statistics = np.array([pixels.mean, pixels.std], np.float32)
        return Visual(levels, grid, statistics, self._order(size, pinpoint))

    def _order(self, size: Size, pinpoint: Size) -> Int32[np.ndarray, "n"]:
        """The feature of each token."""
        side, count = self._vision.side_patches, self._vision.tile_patches
        rows, columns = (length // self._vision.tile_px for length in pinpoint)
        tiles = np.arange(rows * columns * count).reshape(rows, columns, side, side)
        lines = tiles.swapaxes(1, 2).reshape(rows * side, columns * side) + count
        lines = lines[unpadded(size, lines.shape)]
        ended = np.pad(lines, ((0, 0), (0, 1)), constant_values=-1)
        return np.concatenate([np.arange(count), ended.reshape(-1)]).astype(np.int32)

    def largest(self, media: MediaConfig) -> Largest:
        """See `Grammar`."""
        del media  # its bounds are of grids
        vision, found = self._vision, []
        for size in vision.pinpoints:
            tiles = size[0] * size[1] // vision.tile_px**2 + 1
            grid = Grid(tiles, vision.side_patches, vision.side_patches)
            pinpoint = best_pinpoint(size, vision.pinpoints)
            found.append(Largest(size, grid, len(self._order(size, pinpoint))))
        return max(found, key=lambda one: one.num_tokens)


def grammar_of(vision: VisionConfig | DeepConfig | TileConfig) -> Grammar:
    """How images become the tokens of a model with such a tower."""
    return Tiles(vision) if isinstance(vision, TileConfig) else Grids(vision)
