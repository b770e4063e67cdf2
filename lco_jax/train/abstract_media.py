"""Shapes of the media of a batch that is not there."""

import math
from collections.abc import Callable

import jax
import numpy as np

from lco_jax.config import TrainConfig
from lco_jax.data.media_batch import MediaBatch, MediaShape, VisionBatch
from lco_jax.data.patch_layout import WINDOW_ROW
from lco_jax.data.rounding import round_coarsely
from lco_jax.models.config import ModelConfig
from lco_jax.train.steps import MEDIA_SPECS

_IMAGE_SHARE = 0.25
"""Assumed share of items with an image, of the largest size. Source: LCO-Emb, variant M (a quarter
of the triplets)."""
_PLACEMENT = 1.12
"""Patches of a budget for one patch of a large image, whose windows leave gaps."""


def media_shape(config: TrainConfig, model: ModelConfig, num_items: int) -> MediaShape:
    """Room for the images of a data shard, all of the largest size that the config allows."""
    if model.vision is None:
        return MediaShape()
    unit_px = model.vision.patch_px * model.vision.merge_size
    units = config.data.media.image_max_pixels // unit_px**2
    patches = units * model.vision.unit_patches
    frame_row = next(n for n in config.memory.frame_rows if n >= _PLACEMENT * patches)
    num_images = math.ceil(_IMAGE_SHARE * num_items)
    per_row = max(1, int(frame_row // (_PLACEMENT * patches)))
    return MediaShape(frame_row, round_coarsely(math.ceil(num_images / per_row)))


def most_tokens(config: TrainConfig, model: ModelConfig, text_tokens: int) -> int:
    """Of an item with one image and a short text."""
    unit_px = model.vision.patch_px * model.vision.merge_size
    return config.data.media.image_max_pixels // unit_px**2 + text_tokens


def abstract_media(
    model: ModelConfig,
    shape: MediaShape,
    table: tuple[int, int, int],
    chunks: int,
    shards: int,
    array: Callable[..., jax.ShapeDtypeStruct],
) -> MediaBatch | None:
    """Media arrays made by `array(shape, dtype, spec)`, or None where there are none."""
    if shape == MediaShape():
        return None
    sizes = model.vision.sizes
    patches = shape.patch_rows * shape.frame_row
    width = sizes["C"] * sizes["T"] * sizes["Y"] * sizes["X"]
    group, spec = (chunks, shards), MEDIA_SPECS.vision
    vision = VisionBatch(
        patches=array((*group, patches, width), np.float32, spec.patches),
        windows=array((*group, patches // WINDOW_ROW, WINDOW_ROW), np.int32, spec.windows),
        frames=array((*group, shape.patch_rows, shape.frame_row), np.int32, spec.frames),
        coordinates=array((*group, patches, 2), np.int32, spec.coordinates),
    )
    return MediaBatch(vision, None, array(table, np.int32, MEDIA_SPECS.slots))


def describe_media(shape: MediaShape) -> str:
    """A few words on the patches of a chunk on a data shard."""
    if not shape.patch_rows:
        return ""
    return f", {shape.patch_rows} rows of {shape.frame_row} patches"
