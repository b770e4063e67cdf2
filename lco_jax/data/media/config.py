"""How images and clips become patches, and what is refused before it fills the memory."""

from dataclasses import dataclass, field
from typing import Any

MAX_ASPECT_RATIO = 200
"""Of the longer side to the shorter. Source: transformers `smart_resize`."""


@dataclass(frozen=True)
class PixelConfig:
    """Size, values and order of the pixels that the vision tower reads.

    Source: transformers Qwen2VLImageProcessorPil (defaults), OpenAI CLIP (mean and deviation).
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28
    """1,280 tokens, the default of the class. Public checkpoints allow 16,384 tokens an image."""
    patch_size: int = 14
    merge_size: int = 2
    """Patches of one token, a side."""
    temporal_patch_size: int = 2
    """Frames of one patch."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self):
        sizes = (self.patch_size, self.merge_size, self.temporal_patch_size)
        if min(sizes) < 1:
            raise ValueError(f"patch, merge and temporal patch sizes {sizes} must be at least 1")
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"min_pixels={self.min_pixels}, max_pixels={self.max_pixels}: expected "
                "0 < min_pixels <= max_pixels"
            )

    @property
    def unit_px(self) -> int:
        """Sides of images are multiples of this: one token of the decoder."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True)
class VideoConfig:
    """Which frames of a clip are read, and at what size.

    Source: qwen-vl-utils `smart_nframes` and `fetch_video` (defaults).
    """

    fps: float = 2.0
    """Frames to read from a second of the clip."""
    min_frames: int = 4
    """Short clips are sampled more densely to give so many, if they have them."""
    max_frames: int = 768
    pixels: PixelConfig = field(
        default_factory=lambda: PixelConfig(min_pixels=128 * 28 * 28, max_pixels=768 * 28 * 28)
    )
    """Bounds hold for each frame."""
    max_total_pixels: int = 115_200 * 28 * 28
    """Of all pairs of frames; long clips get smaller frames. 90 % of 128,000 tokens."""

    def __post_init__(self):
        if self.fps <= 0:
            raise ValueError(f"fps={self.fps} must be positive")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"min_frames={self.min_frames}, max_frames={self.max_frames}: expected "
                "1 <= min_frames <= max_frames"
            )
        if self.max_total_pixels < 1:
            raise ValueError(f"max_total_pixels={self.max_total_pixels} must be positive")


@dataclass(frozen=True)
class MediaLimits:
    """What a file may unpack to; larger ones are refused unread."""

    max_pixels: int = 89_478_485
    """Of an image or a frame (Pillow's own threshold for decompression bombs)."""
    max_clip_frames: int = 200_000
    """Of a whole clip, sampled or not: two hours at 25 frames a second fit."""

    def __post_init__(self):
        if self.max_pixels < 1 or self.max_clip_frames < 1:
            raise ValueError(f"limits must be positive, got {self}")


DEFAULT_LIMITS = MediaLimits()


def from_hf(preprocessor: dict[str, Any]) -> PixelConfig:
    """The settings in a checkpoint's `preprocessor_config.json`; absent ones keep their default.

    Raises:
        ValueError: contradictory bounds or sizes.
    """
    size = preprocessor.get("size") or {}
    named = {
        "min_pixels": size.get("shortest_edge", preprocessor.get("min_pixels")),
        "max_pixels": size.get("longest_edge", preprocessor.get("max_pixels")),
        "mean": preprocessor.get("image_mean"),
        "std": preprocessor.get("image_std"),
        **{name: preprocessor.get(name) for name in ("patch_size", "merge_size")},
        "temporal_patch_size": preprocessor.get("temporal_patch_size"),
    }
    return PixelConfig(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in named.items()
            if value is not None
        }
    )
