"""From an item to what the model reads: media, tokens and positions."""

import contextlib
import copy
import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Int32

from lco_jax.config import MediaConfig
from lco_jax.config.io import to_json
from lco_jax.data.encode.encoded import Audio, Content, Encoded, Kind, Visual
from lco_jax.data.encode.feature_cache import MediaCache
from lco_jax.data.encode.positions import Grid
from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.encode.row import Row
from lco_jax.data.encode.wrapper_media import image_settings, wrapper_media
from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig, PixelConfig, VideoConfig
from lco_jax.data.media.errors import MediaError, NoAudioError
from lco_jax.data.media.images import image_patches, is_animation, load_image
from lco_jax.data.media.mel import log_mel, mel_chunks
from lco_jax.data.media.sources import MediaOptions, MediaSource, PlainSource, split_options
from lco_jax.data.media.video import load_video, seconds_per_grid, video_patches
from lco_jax.data.records import Exchange, Item
from lco_jax.models.config import ModelConfig
from lco_jax.models.families import FAMILIES

_T = TypeVar("_T")
_Read = tuple[Content, ...]
"""A medium, or a video with its audio."""


class Processor:
    """Reads the media of items, and turns items into tokens.

    Args:
        folder: hub folder of the checkpoint: tokenizer, chat template, pixel statistics.
        config: of the model; decides which kinds of media it reads.
        media: sizes and rates (None: the defaults; with profile `mteb` those of mteb's wrapper).
        profile: prompt recipe; it also says whether a video may have an odd number of frames.
        max_text_tokens: texts are cut to this many tokens (None: what the profile says).
        cache: of media whose features are known and which need not be read.

    Raises:
        ValueError: the folder's tokenizer, template or settings cannot be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: ModelConfig,
        *,
        media: MediaConfig | None = None,
        profile: Literal["lco", "mteb"] = "lco",
        max_text_tokens: int | None = None,
        cache: MediaCache | None = None,
    ):
        folder = Path(folder)
        media = media or (wrapper_media(folder) if profile == "mteb" else MediaConfig())
        self._cache = cache
        self.config, self.media = config, media
        self.family = FAMILIES[config.family]
        self.prompter = Prompter(folder, profile, max_text_tokens, tuple(config.placeholders))
        self.kinds: tuple[Kind, ...] = tuple(self.prompter.markup)
        """Of media that items may have."""
        self._placeholders = {config.placeholders[kind] for kind in self.kinds}
        self._image, self._video = _pixel_configs(folder, config, media)
        if profile == "mteb":
            self._video = dataclasses.replace(self._video, min_frames=1, whole_patches=False)
        self._mel = _mel_config(config, media)
        # Whether a video is read with its audio.
        self._reads_audio_of_videos = (
            media.audio_in_video and self.family.audio_takes_turns and "audio" in self.kinds
        )
        self._pool = ThreadPoolExecutor(thread_name_prefix="media")

    @property
    def head(self) -> Int32[np.ndarray, "P"]:
        """The tokens with which every item begins."""
        return self.prompter.head

    def encode(self, items: Sequence[Item]) -> list[Encoded]:
        """Tokens, positions and media of each item.

        Raises:
            ValueError: an item is empty, or has media that the model does not read.
            MediaError: a medium cannot be used; the message names the file.
        """
        encoded = self.try_encode(items)
        for found in encoded:
            if isinstance(found, ValueError):
                raise found
        return encoded

    def try_encode(self, items: Sequence[Item]) -> list[Encoded | ValueError]:
        """As `encode`, with the error in the place of an item that cannot be encoded."""
        media = self._read_all(items, self.prompter.check)
        encoded = self.prompter.encode(_without_errors(items, media))
        return self._expand_all(items, encoded, media)

    def try_encode_exchanges(
        self, exchanges: Sequence[Exchange], max_response_tokens: int
    ) -> list[Encoded | ValueError]:
        """Tokens, targets, positions and media of each prompt with its response, or the error in
        the place of one that cannot be encoded.
        """
        items = [exchange.prompt for exchange in exchanges]
        media = self._read_all(items, partial(self.prompter.check, may_be_empty=True))
        good = _without_errors(exchanges, media)
        encoded = self.prompter.encode_exchanges(
            [exchange.prompt for exchange in good],
            [exchange.response for exchange in good],
            max_response_tokens,
        )
        return self._expand_all(items, encoded, media)

    def _read_all(
        self, items: Sequence[Item], check: Callable[[Item], None]
    ) -> list[list[_Read] | ValueError]:
        # Texts need no thread: starting work there costs more than looking at them.
        read = self._pool.map if any(item.has_media for item in items) else map
        return list(read(lambda item: self._read_media(item, check), items))

    def _expand_all(self, items, encoded, media) -> list[Encoded | ValueError]:
        encoded = iter(encoded)
        return [
            self._expand(item, next(encoded), own) if isinstance(own, list) else own
            for item, own in zip(items, media, strict=True)
        ]

    def with_cache(self, cache: MediaCache) -> "Processor":
        """The same processor with other media known."""
        other = copy.copy(self)
        other._cache = cache
        return other

    def describe(self) -> dict[str, Any]:
        """What the tokens depend on, for the manifest of a run or an export."""
        return {**self.prompter.describe(), "media": to_json(self.media)}

    def _read_media(self, item: Item, check: Callable[[Item], None]) -> list[_Read] | ValueError:
        try:
            check(item)
            return [self._read(*medium) for medium in self.prompter.ordered_media(item)]
        except MediaError as error:
            return error if item.id is None else type(error)(f"item {item.id}: {error}")
        except ValueError as error:
            return error

    def _read(self, kind: Kind, source: MediaSource) -> _Read:
        if self._cache is not None:
            known = self._cache.load(self._cache.key(kind, source))
            if known is not None:
                return known
        read = self.read_medium(kind, source)
        if kind == "audio" and self.media.audio_features != "all":
            raise ValueError(
                f"data.media.audio_features={self.media.audio_features} is for embedding, with a "
                "reader that is handed in, as the programs do: "
                "Embedder(..., make_reader=lco_jax.lab.audio_tokens.make_reader); "
                "train on audio with audio_features=all"
            )
        return read

    def read_medium(self, kind: Kind, source: MediaSource) -> _Read:
        """A medium as its tower reads it; a video with its audio has two parts.

        Raises:
            MediaError: it cannot be used.
        """
        source, options = split_options(source)
        if kind == "audio":
            return (self._read_audio(source, options),)
        if kind == "image":
            patches = image_patches(load_image(source), options.of_pixels(self._image))
            return (Visual(patches.levels, Grid(*patches.grid), patches.statistics),)
        config = options.of_video(self._video)
        video = load_video(source, config, start_s=options.start or 0.0, end_s=options.end)
        patches = video_patches(video, config)
        seconds = seconds_per_grid(video, config)
        if self.family.video_rate == "asked":
            seconds = config.pixels.temporal_patch_size / config.fps
        visual = Visual(patches.levels, Grid(*patches.grid, seconds), patches.statistics)
        if self._reads_audio_of_videos and not is_animation(source):
            with contextlib.suppress(NoAudioError):
                return visual, self._read_audio(source, options)
        return (visual,)

    def _read_audio(self, source: PlainSource, options: MediaOptions) -> Audio:
        samples = load_audio(source, self._mel, start_s=options.start or 0.0, end_s=options.end)
        return Audio(*mel_chunks(log_mel(samples, self._mel), self._mel))

    def _expand(self, item: Item, encoded: Encoded, media: list[_Read]) -> Encoded | ValueError:
        """As many tokens for each medium as it has features, and the positions of all."""
        if not media:
            return encoded
        ids = encoded.tokens.tolist()
        found = [index for index, token in enumerate(ids) if token in self._placeholders]
        if len(found) != len(media):
            return ValueError(
                f"item {item.id or item.text!r}: its prompt has {len(found)} tokens that stand for "
                f"media, and it has {len(media)} media; remove such tokens from the text"
            )
        row = Row(self.config, encoded.tokens)
        for index, medium in zip(found, media, strict=True):
            row.add_text(index)
            if len(medium) == 1:
                row.add_medium(*medium)
            else:
                row.add_audio_video(*medium)
        row.add_text(len(ids))
        return row.finish(encoded, self.family.after_video(self.media.after_video))


def _without_errors(values: Sequence[_T], media: Sequence[list | ValueError]) -> list[_T]:
    return [value for value, own in zip(values, media, strict=True) if isinstance(own, list)]


def _mel_config(config: ModelConfig, media: MediaConfig) -> MelConfig:
    """What the audio tower reads; longer audio is cut or refused as the run says."""
    if config.audio is None:
        return MelConfig()
    return MelConfig(
        num_mels=config.audio.num_mels,
        chunk_frames=config.audio.chunk_frames,
        max_seconds=media.audio_max_seconds,
        when_longer=media.audio_when_longer,
    )


def _pixel_configs(
    folder: Path, config: ModelConfig, media: MediaConfig
) -> tuple[PixelConfig, VideoConfig]:
    """What the checkpoint says of pixels, with the sizes of the run."""
    said = image_settings(folder)
    spellings = {"mean": "image_mean", "std": "image_std"}
    shared = {name: tuple(said[key]) for name, key in spellings.items() if said.get(key)}
    if config.vision is not None:
        shared |= {
            "patch_size": config.vision.patch_px,
            "merge_size": config.vision.merge_size,
            "temporal_patch_size": config.vision.frames_per_patch,
        }
    image = PixelConfig(media.image_min_pixels, media.image_max_pixels, **shared)
    frame = PixelConfig(media.video_min_pixels, media.video_max_pixels, **shared)
    video = VideoConfig(
        fps=media.video_fps,
        max_frames=media.video_max_frames,
        pixels=frame,
        max_total_pixels=media.video_max_total_pixels,
    )
    return image, video
