"""A medium as the towers of a checkpoint read it."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lco_jax.config import MediaConfig, ProfileName
from lco_jax.data.encode.encoded import Audio, Content, Kind, Visual
from lco_jax.data.encode.grammar import grammar_of
from lco_jax.data.encode.positions import Grid
from lco_jax.data.encode.wrapper_media import image_settings
from lco_jax.data.errors import RecordError, belonging_to
from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig, PixelConfig, VideoConfig
from lco_jax.data.media.errors import MediaError, NoAudioError
from lco_jax.data.media.images import is_animation, load_hashed
from lco_jax.data.media.mel import log_mel, mel_chunks
from lco_jax.data.media.sources import (
    MediaOptions,
    MediaSource,
    PlainSource,
    name_of,
    split_options,
)
from lco_jax.data.media.video import load_video, patch_times, seconds_per_grid, video_patches
from lco_jax.models.config import ModelConfig
from lco_jax.models.families import FAMILIES

_Read = tuple[Content, ...]
"""A medium, or a video with its audio."""


class TowerMedia:
    """Reads media at the sizes and rates of a run, with the statistics of a checkpoint.

    Args:
        folder: hub folder of the checkpoint: pixel statistics.
        media: sizes and rates.
        kinds: of media that items may have.
        profile: says whether a video may have an odd number of frames.

    Raises:
        ValueError: the settings of the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        media: MediaConfig,
        kinds: Sequence[Kind],
        profile: ProfileName,
    ):
        self._family = FAMILIES[config.family]
        self._grammar = grammar_of(config.vision)
        self._image, self._video = _pixel_configs(folder, config, media)
        if profile == "mteb":
            self._video = dataclasses.replace(self._video, min_frames=1, whole_patches=False)
        self._mel = _mel_config(config, media)
        self._limits = media.limits
        # Whether a video is read with its audio.
        self._reads_audio_of_videos = (
            media.audio_in_video and self._family.audio_takes_turns and "audio" in kinds
        )

    @property
    def settings(self) -> tuple:
        """What is read of a medium depends on, besides its bytes and limits."""
        return self._image, self._video, self._mel, self._reads_audio_of_videos

    def read(self, kind: Kind, source: MediaSource) -> _Read:
        """A medium as its tower reads it; a video with its audio has two parts.

        Raises:
            MediaError: it cannot be used.
        """
        try:
            with belonging_to(name_of(source)):
                return self._read(kind, *split_options(source))
        except MediaError:
            raise
        except RecordError as error:
            raise MediaError(f"{error}; copy the file again, or convert it") from error

    def _read(self, kind: Kind, source: PlainSource, options: MediaOptions) -> _Read:
        if kind == "audio":
            return (self._read_audio(source, options),)
        if kind == "image":
            image, content_hash = load_hashed(source, self._limits)
            visual = self._grammar.read_image(image, self._image, options)
            return (visual._replace(content_hash=content_hash),)
        config = options.of_video(self._video)
        start_s = options.start or 0.0
        video = load_video(source, config, self._limits, start_s=start_s, end_s=options.end)
        patches = video_patches(video, config)
        seconds = seconds_per_grid(video, config)
        if self._family.video_rate == "asked":
            seconds = config.pixels.temporal_patch_size / config.fps
        times = patch_times(video, config) if self._family.writes_times else ()
        visual = Visual(patches.levels, Grid(*patches.grid, seconds, times), patches.statistics)
        if self._reads_audio_of_videos and not is_animation(source):
            with contextlib.suppress(NoAudioError):
                return visual, self._read_audio(source, options)
        return (visual,)

    def _read_audio(self, source: PlainSource, options: MediaOptions) -> Audio:
        start_s = options.start or 0.0
        samples = load_audio(source, self._mel, self._limits, start_s=start_s, end_s=options.end)
        return Audio(*mel_chunks(log_mel(samples, self._mel), self._mel))


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
