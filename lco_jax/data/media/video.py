"""Videos as few frames, evenly spread in time, and as patches."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from lco_jax.config import MediaLimits
from lco_jax.data.media.config import DEFAULT_LIMITS, VideoConfig
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.footage import Footage, read_footage, read_frames
from lco_jax.data.media.images import resize
from lco_jax.data.media.patches import Patches, patchify, smart_resize
from lco_jax.data.media.sources import Frames, name_of, open_media


class SampledVideo(NamedTuple):
    """Sampled frames of a video or of an animated image."""

    frames: UInt8[np.ndarray, "T Y X 3"]
    """In RGB, at the size in which they become patches."""
    fps: float
    """Of these frames: less than the file's if some were left out."""
    times_s: tuple[float, ...]
    """Of each frame since the beginning of the video, by its mean rate."""


def load_video(
    source: str | bytes | Frames,
    config: VideoConfig,
    limits: MediaLimits = DEFAULT_LIMITS,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> SampledVideo:
    """The sampled frames of a video, of an animated GIF, PNG or WebP, or of frames in memory.

    Frames are decoded one by one and resized at once, so memory holds only the result. A still
    image is a video of one frame.

    Args:
        source: an address, the content of a file, or frames in memory.
        config: which frames, and their size.
        limits: what is refused before it is unpacked.
        start_s, end_s: the part that is sampled (None: to the end), by the video's mean rate.

    Raises:
        MediaError: missing, empty, no video, truncated, damaged, too large or too thin, or the
            part has no frames.
    """
    name = name_of(source)
    if isinstance(source, Frames):
        return _sample(read_frames(source, config.fps, limits), name, config, start_s, end_s)
    with open_media(source) as file:
        return _sample(read_footage(file, name, limits), name, config, start_s, end_s)


def _sample(
    footage: Footage, name: str, config: VideoConfig, start_s: float, end_s: float | None
) -> SampledVideo:
    num_shown = footage.num_frames
    while num_shown:
        first = round(start_s * footage.fps)
        last = num_shown if end_s is None else min(round(end_s * footage.fps), num_shown)
        count = last - first
        if count < 1:
            raise MediaError(
                f"{name}: lasts {num_shown / footage.fps:.1f} seconds; it has no frame between "
                f"start={start_s:g} and end={'its end' if end_s is None else f'{end_s:g}'}"
            )
        wanted = (first + sample_indices(count, footage.fps, config)).tolist()
        frames, num_decoded = _collect(footage.frames(frozenset(wanted)), len(wanted), config)
        if len(frames) == len(wanted):
            times_s = tuple(index / footage.fps for index in wanted)
            return SampledVideo(np.stack(frames), len(wanted) / count * footage.fps, times_s)
        # The file also counted frames that are never shown, as VP8 has: sample those that are.
        num_shown = num_decoded
    raise MediaError(f"{name}: none of its frames can be shown; export it again")


def video_patches(video: SampledVideo, config: VideoConfig) -> Patches:
    """The patches of a video; an odd last frame is repeated."""
    return patchify(video.frames, config.pixels)


def seconds_per_grid(video: SampledVideo, config: VideoConfig) -> float:
    """Time from one patch of a video to the next.

    Source: transformers Qwen2_5_VLProcessor (`second_per_grid_ts`). The Omni processor takes the
    rate that was asked for, `config.fps`, in place of the video's own.
    """
    return config.pixels.temporal_patch_size / video.fps


def patch_times(video: SampledVideo, config: VideoConfig) -> tuple[float, ...]:
    """The time of each temporal patch of a video in seconds: the mean of those of its first and its
    last frame.

    Source: transformers Qwen3VLProcessor._calculate_timestamps.
    """
    size = config.pixels.temporal_patch_size
    last = len(video.times_s) - 1
    return tuple(
        (video.times_s[first] + video.times_s[min(first + size - 1, last)]) / 2
        for first in range(0, last + 1, size)
    )


def sample_indices(num_frames: int, fps: float, config: VideoConfig) -> Int[np.ndarray, "T"]:
    """Numbers of the frames to keep of a video: whole patches if the config says so, the first and
    the last among them.

    Source: qwen-vl-utils `smart_nframes` (which refuses videos of one frame; here it is kept), and
    mteb's `FramesCollator` for any number of frames.
    """
    factor = config.pixels.temporal_patch_size if config.whole_patches else 1
    fewest = -(-config.min_frames // factor) * factor
    most = min(config.max_frames, num_frames) // factor * factor
    count = int(min(max(num_frames / fps * config.fps, fewest), most)) // factor * factor
    return np.linspace(0, num_frames - 1, max(count, 1)).round().astype(np.int64)


def frame_size(height: int, width: int, num_frames: int, config: VideoConfig) -> tuple[int, int]:
    """Height and width of the frames of a video, of which `num_frames` were kept.

    Source: transformers Qwen2VLVideoProcessor.resize with `cap_pixels_per_frame`.
    """
    pixels = config.pixels
    share = config.max_total_pixels * pixels.temporal_patch_size // num_frames
    max_pixels = max(min(pixels.max_pixels, share), int(pixels.min_pixels * 1.05))
    return smart_resize(height, width, pixels.unit_px, pixels.min_pixels, max_pixels)


def _collect(
    shown: Iterator[Image.Image | None], count: int, config: VideoConfig
) -> tuple[list[np.ndarray], int]:
    """The first `count` frames that are not None, resized, and how many were decoded for them."""
    frames: list[np.ndarray] = []
    num_decoded, size = 0, None
    for image in shown:
        num_decoded += 1
        if image is not None:
            size = size or frame_size(image.height, image.width, count, config)
            frames.append(resize(image, *size))
        if len(frames) == count:
            break
    return frames, num_decoded
