"""How images, video and audio are read, and what is refused before it fills the memory."""

from dataclasses import dataclass, field
from typing import Literal

from lco_jax.config import MediaLimits

MAX_ASPECT_RATIO = 200
"""Of the longer side to the shorter. Source: transformers `smart_resize`."""
SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
"""From one mel frame to the next: 100 frames a second."""
FFT_SAMPLES = 400
"""Under the window of a mel frame. Source: transformers WhisperFeatureExtractor."""


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
    """Which frames of a video are read, and at what size.

    Source: qwen-vl-utils `smart_nframes` and `fetch_video` (defaults).
    """

    fps: float = 2.0
    """Frames to read from a second of the video."""
    min_frames: int = 4
    """Short videos are sampled more densely to give so many, if they have them."""
    max_frames: int = 768
    pixels: PixelConfig = field(
        default_factory=lambda: PixelConfig(min_pixels=128 * 28 * 28, max_pixels=768 * 28 * 28)
    )
    """Bounds hold for each frame."""
    max_total_pixels: int = 115_200 * 28 * 28
    """Of all pairs of frames; long videos get smaller frames. 90 % of 128,000 tokens."""
    whole_patches: bool = True
    """Whether frames are left out until they fill their patches. Otherwise there may be an odd
    number of them, and the last is repeated; so reads mteb's `FramesCollator`."""

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
class MelConfig:
    """How much of an audio file is read, and the mel frames that the audio tower reads of it.

    Source: transformers WhisperFeatureExtractor with the settings of the public Omni checkpoints.
    """

    num_mels: int = 128
    chunk_frames: int = 200
    """Mel frames that the tower encodes together (two seconds)."""
    buffer_seconds: int = 300
    """Of the silence into which transformers lays a recording: only one that fills it is mirrored
    at its end."""
    max_seconds: float = 300.0
    """Longer recordings are cut or refused."""
    when_longer: Literal["cut", "refuse"] = "cut"

    def __post_init__(self):
        if self.num_mels < 1:
            raise ValueError(f"num_mels={self.num_mels} must be positive")
        if self.chunk_frames < 4 or self.chunk_frames % 4:
            raise ValueError(f"chunk_frames={self.chunk_frames} must be a positive multiple of 4")
        if not 0 < self.max_seconds <= self.buffer_seconds:
            raise ValueError(
                f"max_seconds={self.max_seconds}, buffer_seconds={self.buffer_seconds}: expected "
                "0 < max_seconds <= buffer_seconds"
            )
        if self.when_longer not in ("cut", "refuse"):
            raise ValueError(f"when_longer={self.when_longer!r}; expected 'cut' or 'refuse'")

    @property
    def max_samples(self) -> int:
        """At 16 kHz."""
        return round(self.max_seconds * SAMPLE_RATE_HZ)


DEFAULT_LIMITS = MediaLimits()
