"""The shapes of a batch, assumed where no data are read."""

import math
from collections.abc import Callable

import jax
import numpy as np

from lco_jax.config import TrainConfig
from lco_jax.data.pack.batch import Batch, Shape
from lco_jax.data.pack.media_batch import MediaBatch, MediaShape, VisionBatch
from lco_jax.data.pack.patch_layout import WINDOW_ROW
from lco_jax.data.pack.rounding import round_coarsely, round_rows
from lco_jax.data.pack.shares import slots_per_cell
from lco_jax.data.pack.specs import BATCH_SPECS, MEDIA_SPECS
from lco_jax.models.config import ModelConfig
from lco_jax.objectives.traits import traits_of
from lco_jax.runtime import mesh as meshes

_LABELS = 4096
"""Assumed vocabulary of an alignment."""
_PLACEMENT = 1.12
"""Patches of a budget for one patch of a large image, whose windows leave gaps."""


def assume_batch(
    config: TrainConfig, model: ModelConfig, mesh: jax.sharding.Mesh
) -> tuple[Shape, Batch]:
    """Shapes and shardings of the batches of a stage.

    Raises:
        ValueError: there are fewer examples than data shards.
    """
    shards, chunks = meshes.num_shards(mesh), config.memory.encode_chunks
    size, cells = config.data.batch_size, shards * chunks
    if size < cells:
        raise ValueError(
            f"batch_size={size} is less than encode_chunks={chunks} times {shards} data shards; "
            f"use at least {cells}, or a larger mesh.tensor"
        )
    traits = traits_of(config.objective)
    assumed = traits.assume(config)
    roles, examples = assumed.roles, slots_per_cell(size, cells)
    row_tokens = _first_of(config.memory.row_tokens, 3 * assumed.item_tokens)
    media = _media_shape(config, model, math.ceil(assumed.image_share * examples * roles))
    num_image_tokens = 0
    if model.vision is not None:
        num_image_tokens = media.patch_rows * media.frame_row // model.vision.unit_patches
        longest = image_tokens(config, model) + assumed.item_tokens
        row_tokens = _first_of(config.memory.row_tokens, longest)
    tokens = examples * roles * assumed.item_tokens + num_image_tokens
    rows = round_rows(math.ceil(tokens / row_tokens))
    table = (chunks, rows * shards, row_tokens)
    items = (chunks, roles, examples * shards)

    def array(shape: tuple[int, ...], dtype: type, spec: jax.P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, spec))

    specs = BATCH_SPECS
    return Shape(row_tokens, rows, media), Batch(
        tokens=array(table, np.int32, specs.tokens),
        segments=array(table, np.int32, specs.segments),
        positions=array((*table, 3), np.int32, specs.positions),
        pool=array(items, np.int32, specs.pool),
        valid=array(items, np.bool_, specs.valid),
        content=array((*items, 2), np.uint32, specs.content),
        media=_media(model, media, table, chunks, shards, array),
        targets=array(table, np.int32, specs.tokens) if traits.has_targets else None,
        vocabulary=array((chunks, _LABELS), np.int32, jax.P()) if traits.has_vocabulary else None,
    )


def _media_shape(config: TrainConfig, model: ModelConfig, num_images: int) -> MediaShape:
    """Room for the images of a data shard, all of the largest size that the config allows."""
    if model.vision is None:
        return MediaShape()
    patches = image_tokens(config, model) * model.vision.unit_patches
    frame_row = _first_of(config.memory.frame_rows, _PLACEMENT * patches)
    per_row = max(1, int(frame_row // (_PLACEMENT * patches)))
    return MediaShape(frame_row, round_coarsely(math.ceil(num_images / per_row)), patch_frames=1)


def _first_of(allowed: tuple[int, ...], wanted: float) -> int:
    """The first allowed size of at least `wanted`, or the largest."""
    return next((size for size in allowed if size >= wanted), allowed[-1])


def image_tokens(config: TrainConfig, model: ModelConfig) -> int:
    """Of an image of the largest size."""
    unit_px = model.vision.patch_px * model.vision.merge_size
    return config.data.media.image_max_pixels // unit_px**2


def _media(
    model: ModelConfig,
    shape: MediaShape,
    table: tuple[int, int, int],
    chunks: int,
    shards: int,
    array: Callable[..., jax.ShapeDtypeStruct],
) -> MediaBatch | None:
    if shape == MediaShape():
        return None
    patches = shape.patch_rows * shape.frame_row
    width = model.vision.num_channels * shape.patch_frames * model.vision.patch_px**2
    group, spec = (chunks, shards), MEDIA_SPECS.vision
    vision = VisionBatch(
        patches=array((*group, patches, width), np.uint8, spec.patches),
        statistics=array((*group, 2, model.vision.num_channels), np.float32, spec.statistics),
        windows=array((*group, patches // WINDOW_ROW, WINDOW_ROW), np.int32, spec.windows),
        frames=array((*group, shape.patch_rows, shape.frame_row), np.int32, spec.frames),
        coordinates=array((*group, patches, 2), np.int32, spec.coordinates),
    )
    return MediaBatch(vision, None, array(table, np.int32, MEDIA_SPECS.slots))
