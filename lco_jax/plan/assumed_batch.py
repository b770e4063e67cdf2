"""The shapes of a batch, assumed where no data are read."""

import math
from collections.abc import Callable

import jax
import numpy as np

from lco_jax.config import TrainConfig
from lco_jax.data.encode.encoded import Encoded, Medium, Visual
from lco_jax.data.encode.grammar import Largest, grammar_of
from lco_jax.data.pack.batch import Batch, Shape, choose_shape, item_lengths, measure
from lco_jax.data.pack.budgets import open_budget
from lco_jax.data.pack.media_batch import MediaBatch, MediaPacker, MediaShape, VisionBatch
from lco_jax.data.pack.patch_layout import WINDOW_ROW
from lco_jax.data.pack.shares import check_batch_size, slots_per_cell
from lco_jax.data.pack.specs import BATCH_SPECS, MEDIA_SPECS
from lco_jax.models.config import ModelConfig
from lco_jax.objectives.traits import traits_of
from lco_jax.runtime import mesh as meshes

_LABELS = 4096
"""Assumed vocabulary of an alignment."""


def assume_batch(
    config: TrainConfig, model: ModelConfig, mesh: jax.sharding.Mesh
) -> tuple[Shape, Batch]:
    """Shapes and shardings of the batches of a stage.

    Raises:
        ValueError: there are fewer examples than encode chunks of data shards.
    """
    shards, chunks = meshes.num_shards(mesh), config.memory.encode_chunks
    shape = assume_shape(config, model, shards)
    examples = slots_per_cell(config.data.batch_size, shards * chunks)
    items = (chunks, traits_of(config.objective).assume(config).roles, examples * shards)
    return shape, arrays_of(shape, items, config, model, mesh)


def arrays_of(
    shape: Shape,
    items: tuple[int, int, int],
    config: TrainConfig,
    model: ModelConfig,
    mesh: jax.sharding.Mesh,
) -> Batch:
    """Shapes and shardings of a batch of encode chunks, roles and examples, packed in a shape."""
    row_tokens, rows, media = shape
    shards, chunks = meshes.num_shards(mesh), items[0]
    traits = traits_of(config.objective)
    table = (chunks, rows * shards, row_tokens)

    def array(shape: tuple[int, ...], dtype: type, spec: jax.P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, spec))

    specs = BATCH_SPECS
    return Batch(
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


def share_with_targets(config: TrainConfig, shape: Shape, batch: Batch) -> float:
    """The share of the tokens of a data shard that have a target, at most; they are moved to the
    front of their rows, so as many blocks of tokens have one.
    """
    if batch.targets is None:
        return 0.0
    num_cells = batch.tokens.shape[0] * batch.tokens.shape[1] // shape.rows
    examples = math.prod(batch.pool.shape) // num_cells
    targets = examples * config.objective.max_response_tokens
    return min(1.0, targets / (shape.rows * shape.row_tokens))


def assume_shape(config: TrainConfig, model: ModelConfig, num_shards: int) -> Shape:
    """What the packer of a run makes of the fullest data shard of an encode chunk.

    Raises:
        ValueError: there are fewer examples than encode chunks of data shards.
    """
    memory, size = config.memory, config.data.batch_size
    check_batch_size(size, memory.encode_chunks, num_shards)
    assumed = traits_of(config.objective).assume(config)
    examples = slots_per_cell(size, num_shards * memory.encode_chunks)
    count = examples * assumed.roles
    items = [_item(assumed.item_tokens)] * count
    if model.vision is not None:
        largest = largest_image(config, model)
        # The pixels of a still image; nobody looks at them.
        levels = np.zeros((0, model.vision.num_channels * model.vision.patch_px**2), np.uint8)
        image = Visual(levels, largest.grid, np.zeros((2, 3), np.float32))
        with_image = _item(assumed.item_tokens + largest.num_tokens, image)
        num_images = math.ceil(assumed.image_share * count)
        items[:num_images] = [with_image] * num_images
    lengths = item_lengths(items).reshape(1, examples, assumed.roles)
    shape = choose_shape(measure(lengths, 1, memory.row_tokens), memory.row_tokens)
    if model.vision is not None:
        packer = MediaPacker(model, memory.frame_rows)
        shape = shape._replace(media=packer.choose_shape(packer.measure([items])))
    return shape.at_least(*memory.least_shape)


def _item(num_tokens: int, image: Visual | None = None) -> Encoded:
    """An item of which only the size matters."""
    media = () if image is None else (Medium(image, np.zeros(0, np.int32)),)
    return Encoded(np.zeros(num_tokens, np.int32), np.uint64(0), media=media)


def largest_image(config: TrainConfig, model: ModelConfig) -> Largest:
    """The image with most tokens that the config allows, nearly a square."""
    return grammar_of(model.vision).largest(config.data.media)


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
    windows = coordinates = None
    if model.vision.has_windows:
        windows = array((*group, patches // WINDOW_ROW, WINDOW_ROW), np.int32, spec.windows)
    if model.vision.has_grids:
        each = open_budget(model.vision, shape.frame_row).layout(0).coordinates.shape[1]
        coordinates = array((*group, patches, each), np.int32, spec.coordinates)
    vision = VisionBatch(
        patches=array((*group, patches, width), np.uint8, spec.patches),
        statistics=array((*group, 2, model.vision.num_channels), np.float32, spec.statistics),
        windows=windows,
        frames=array((*group, shape.patch_rows, shape.frame_row), np.int32, spec.frames),
        coordinates=coordinates,
    )
    return MediaBatch(vision, None, array(table, np.int32, MEDIA_SPECS.slots))
