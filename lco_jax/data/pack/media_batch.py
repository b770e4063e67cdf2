"""The media of a batch, packed for each data shard, and where their features go."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from lco_jax.data.encode.encoded import Content, Encoded, Visual
from lco_jax.data.media.mel import num_audio_tokens
from lco_jax.data.media.patches import repeat_frames
from lco_jax.data.pack.budgets import frame_rows_of, open_budget
from lco_jax.data.pack.patch_layout import choose_frame_row
from lco_jax.data.pack.rounding import round_coarsely
from lco_jax.models.config import DeepConfig, ModelConfig, TileConfig, VisionConfig
from lco_jax.runtime.buffers import empty_array


class MediaShape(NamedTuple):
    """The size of the media of one chunk on one data shard; 0 where there are none anywhere."""

    frame_row: int = 0
    """Patches of a row of frame attention."""
    patch_rows: int = 0
    audio_chunks: int = 0
    known_features: int = 0
    """Of media that a tower has seen before."""
    patch_frames: int = 0
    """Of which pixels travel: one a patch where there are still images alone."""


class VisionBatch(NamedTuple):
    """Patches, by chunk and data shard; see `PatchLayout`."""

    patches: UInt8[np.ndarray, "C G P W"]
    """Levels of red, green and blue, which the device normalises."""
    statistics: Float32[np.ndarray, "C G 2 3"]
    """Mean and standard deviation of each channel."""
    windows: Int32[np.ndarray, "C G X S"] | None
    frames: Int32[np.ndarray, "C G X T"]
    coordinates: Int32[np.ndarray, "C G P X"] | None


class AudioBatch(NamedTuple):
    """Chunks of log-mel frames, by chunk of the batch and data shard."""

    mels: Float32[np.ndarray, "C G X M T"]
    frames: Int32[np.ndarray, "C G X"]
    """How many frames of each are real; 0 is padding."""


class MediaBatch(NamedTuple):
    """What the towers read, and where their features go. Media never leave their shard."""

    vision: VisionBatch | None
    audio: AudioBatch | None
    slots: Int32[np.ndarray, "C B S"]
    """For each token the feature that takes its place, counted within the shard: first those of
    the patches and what the tower adds, then those of the audio, then the known ones; -1: text."""
    known: Float32[np.ndarray, "C G X D"] | None = None
    """Features that no tower need compute."""

    @property
    def share_real_patches(self) -> float | None:
        """The share of the patches of all budgets that hold pixels (None: no images)."""
        if self.vision is None:
            return None
        return np.count_nonzero(self.vision.frames) / self.vision.frames.size


class MediaPacker:
    """Packs the media of items into the budgets of their data shards.

    Args:
        frame_rows: allowed lengths of a row of frame attention, ascending.
        one_by_one: items are placed in their order, each without regard to those after it.
        flows: see `open_budget`.
    """

    def __init__(
        self,
        config: ModelConfig,
        frame_rows: Sequence[int],
        *,
        one_by_one: bool = False,
        flows: bool = False,
    ):
        self._vision, self._audio = config.vision, config.audio
        self._one_by_one, self._flows = one_by_one, flows
        self._width = config.feature_size if config.text else 0
        self._frame_rows = frame_rows_of(config.vision, frame_rows)
        self._copies_pixels = True

    def without_pixels(self) -> "MediaPacker":
        """The same packer where only places matter: all patches that it fills in are zero."""
        other = copy.copy(self)
        other._copies_pixels = False
        return other

    def measure(self, shards: Sequence[Sequence[Encoded]]) -> tuple[int, ...]:
        """What the items of each shard ask of the shape: the element-wise maximum over processes
        is what the whole step asks.

        Raises:
            ValueError: a frame fits into no allowed row.
        """
        shortest, rows, chunks, known = 0, [0] * len(self._frame_rows), 0, 0
        shards = [[item for item in items if item.media] for items in shards]
        frames = max(
            (patch_frames(item, self._vision) for own in shards for item in own), default=0
        )
        for items in shards:
            chunks = max(chunks, sum(_num_chunks(item) for item in items))
            known = max(known, sum(len(m.places) for item in items for m in item.known))
            grids = _grids(items)
            if not grids:
                continue
            needed = self._frame_rows.index(choose_frame_row(grids, self._frame_rows, self._vision))
            shortest = max(shortest, needed + 1)
            count = 0
            for index in range(needed, len(rows)):
                if count != 1:  # in longer rows it is one, too
                    budget = open_budget(self._vision, self._frame_rows[index])
                    budget.add(grids)
                    count = budget.num_rows
                rows[index] = max(rows[index], count)
        return shortest, chunks, known, frames, *rows

    def choose_shape(self, demand: Sequence[int]) -> MediaShape:
        """The shape of a step, from the maximum over processes of what `measure` gives: of the rows
        that hold every frame those that need the fewest patches, or that cost least, since
        attention costs more a patch in longer rows."""
        shortest, chunks, known, frames, *rows = demand
        rest = [round_coarsely(size) if size else 0 for size in (chunks, known)]
        if not shortest:
            return MediaShape(0, 0, *rest)
        shapes = [
            (row, round_coarsely(count))
            for row, count in zip(self._frame_rows, rows, strict=True)
            if row >= self._frame_rows[shortest - 1]
        ]
        more = _attended(self._vision)
        row, num_rows = min(shapes, key=lambda one: one[0] * one[1] * (1 + one[0] * more))
        return MediaShape(row, num_rows, *rest, frames)

    def fill(
        self,
        shards: Sequence[Sequence[Encoded]],
        token_starts: Sequence[Sequence[int]],
        shape: MediaShape,
        num_tokens: tuple[int, int, int],
    ) -> MediaBatch | None:
        """The arrays for the shards of all chunks, in order.

        Args:
            token_starts: index of each item's first token in the flattened rows of all shards.
            num_tokens: chunks, rows and row length of the token arrays.

        Raises:
            ValueError: a shard has more media than `shape` allows.
        """
        if shape == MediaShape():
            return None
        slots = np.full(num_tokens, -1, np.int32)
        groups = (num_tokens[0], len(shards) // num_tokens[0])

        def by_chunk(arrays: Sequence[np.ndarray | None]) -> Iterator[np.ndarray | None]:
            return (x if x is None else x.reshape(*groups, *x.shape[1:]) for x in arrays)

        vision = audio = known = None
        if shape.patch_rows:
            vision = VisionBatch(*by_chunk(self._fill_vision(shards, token_starts, shape, slots)))
        if shape.audio_chunks:
            audio = AudioBatch(*by_chunk(self._fill_audio(shards, token_starts, shape, slots)))
        if shape.known_features:
            (known,) = by_chunk([self._fill_known(shards, token_starts, shape, slots)])
        return MediaBatch(vision, audio, slots, known)

    def _fill_vision(self, shards, token_starts, shape, slots) -> VisionBatch:
        config = self._vision
        num_patches = shape.patch_rows * shape.frame_row
        pixels = config.patch_px**2
        width = config.num_channels * shape.patch_frames * pixels
        size = (len(shards), num_patches, width)
        # Without pixels it is never touched, and costs nothing.
        patches = empty_array(size, np.uint8) if self._copies_pixels else np.zeros(size, np.uint8)
        # Of a shard without images, where any finite values do.
        statistics = np.ones((len(shards), 2, config.num_channels), np.float32)
        units_of = patches.reshape(len(shards), -1, config.unit_patches, width)
        layouts = []
        for number, (items, starts) in enumerate(zip(shards, token_starts, strict=True)):
            budget = open_budget(config, shape.frame_row, flows=self._flows)
            if self._one_by_one:
                units = np.concatenate([budget.add(())] + [budget.add(_grids([x])) for x in items])
            else:
                units = budget.add(_grids(items))
            first = 0
            layouts.append(budget.layout(shape.patch_rows))
            if self._copies_pixels:
                unused = np.ones(units_of.shape[1], bool)
                unused[units] = False
                units_of[number, unused] = 0
            for content, places in _media(items, starts, "visuals"):
                own = units[first : first + _num_units(content, config)]
                first += len(own)
                statistics[number] = content.statistics
                if self._copies_pixels:
                    levels = repeat_frames(content.patches, shape.patch_frames, pixels)
                    units_of[number, own] = levels.reshape(-1, config.unit_patches, width)
                if content.order is not None:
                    own = np.append(own, num_patches // config.unit_patches)[content.order]
                slots.flat[places] = own
        parts = zip(*(layout[:3] for layout in layouts), strict=True)
        stacked = (None if part[0] is None else np.stack(part) for part in parts)
        return VisionBatch(patches, statistics, *stacked)

    def _fill_audio(self, shards, token_starts, shape, slots) -> AudioBatch:
        config = self._audio
        first_feature = self._num_visual(shape)
        size = (len(shards), shape.audio_chunks, config.num_mels, config.chunk_frames)
        mels, frames = np.zeros(size, np.float32), np.zeros(size[:2], np.int32)
        chunk_tokens = config.chunk_rows // 2
        for number, (items, starts) in enumerate(zip(shards, token_starts, strict=True)):
            taken = 0
            for content, places in _media(items, starts, "audios"):
                chunks = np.arange(taken, taken + len(content.frames))
                taken += len(chunks)
                mels[number, chunks], frames[number, chunks] = content.chunks, content.frames
                features = _audio_features(content.frames, chunks, chunk_tokens)
                slots.flat[places] = first_feature + features
        return AudioBatch(mels, frames)

    def _fill_known(self, shards, token_starts, shape, slots) -> Float32[np.ndarray, "G X D"]:
        first = self._num_visual(shape)
        if shape.audio_chunks:
            first += shape.audio_chunks * (self._audio.chunk_rows // 2)
        values = np.zeros((len(shards), shape.known_features, self._width), np.float32)
        for number, (items, starts) in enumerate(zip(shards, token_starts, strict=True)):
            taken = 0
            for content, places in _media(items, starts, "known"):
                own = np.arange(taken, taken + len(places))
                taken += len(own)
                values[number, own] = content.features
                slots.flat[places] = first + own
        return values

    def _num_visual(self, shape: MediaShape) -> int:
        """Features of a shard's patches, and what the tower adds to them."""
        if not shape.patch_rows:
            return 0
        units = shape.patch_rows * shape.frame_row // self._vision.unit_patches
        return units + self._vision.extra_features


def _media(
    items: Sequence[Encoded], starts: Sequence[int], kind: str
) -> Iterator[tuple[Content, Int64[np.ndarray, "n"]]]:
    """The media of a shard's items, and where in the batch the tokens lie that stand for them."""
    for item, start in zip(items, starts, strict=True):
        for medium in getattr(item, kind):
            yield medium.content, start + medium.places


def _audio_features(
    frames: Int32[np.ndarray, "k"], chunks: Int64[np.ndarray, "k"], chunk_tokens: int
) -> Int64[np.ndarray, "n"]:
    """The places of the real features of some chunks."""
    counts = num_audio_tokens(frames)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(chunks * chunk_tokens, counts) + within


def _attended(config: VisionConfig | DeepConfig | TileConfig) -> float:
    """What a patch adds to the cost of each patch of its row, all but attention taken as 1."""
    if not config.has_grids:
        return 0.0
    return 2 * config.hidden_size * len(config.full_layers) / config.matrix_weights


def patch_frames(item: Encoded, config: VisionConfig | DeepConfig | TileConfig) -> int:
    """How many frames a patch of the item's images and videos has; 0 if it has none of them."""
    pixels = config.num_channels * config.patch_px**2 if item.visuals else 1
    widths = (medium.content.patches.shape[1] for medium in item.visuals)
    return max((width // pixels for width in widths), default=0)


def _grids(items: Sequence[Encoded]) -> list:
    return [medium.content.grid for item in items for medium in item.visuals]


def _num_units(content: Visual, config: VisionConfig | DeepConfig | TileConfig) -> int:
    """Of an image or a video, whether its pixels are there or not."""
    return math.prod(content.grid[:3]) // config.unit_patches


def _num_chunks(item: Encoded) -> int:
    return sum(len(medium.content.frames) for medium in item.audios)
