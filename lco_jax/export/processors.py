"""The files by which the processors of transformers read media as the recipe of an export says.

Source: transformers AutoProcessor, Qwen2_5_VLProcessor, Qwen2_5OmniProcessor,
LlavaNextProcessor, Qwen3VLVideoProcessor.
"""

import json
from pathlib import Path
from typing import Any

from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.wrapper_media import image_settings, processor_settings
from lco_jax.data.media.config import FFT_SAMPLES, HOP_SAMPLES, SAMPLE_RATE_HZ

IMAGE_FILE = "preprocessor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"
JOINT_FILE = "processor_config.json"
"""Newer checkpoints keep the settings of all media in it; it would prevail over the others."""

_MIN_FRAMES = 4
_SHARE_OF_CONTEXT = 0.9
"""Of `max_video_tokens` that transformers gives to the frames of a video."""


def write_processor(folder: Path, processor: Processor) -> None:
    """Write sizes and rates of media into a hub folder; its other settings stay."""
    if not processor.config.vision.has_grids:
        _write_tile_processor(folder, processor)
        return
    said = processor_settings(folder)
    (folder / JOINT_FILE).unlink(missing_ok=True)
    vision, media = processor.config.vision, processor.media
    classes = processor.family.torch_media
    shared = {
        "processor_class": classes.processor,
        "patch_size": vision.patch_px,
        "merge_size": vision.merge_size,
        "temporal_patch_size": vision.frames_per_patch,
    }
    image = {
        **_audio_settings(processor),
        **said,
        **shared,
        "image_processor_type": classes.image_processor,
        "size": _size(media.image_min_pixels, media.image_max_pixels),
        # Older versions of transformers know only these.
        "min_pixels": media.image_min_pixels,
        "max_pixels": media.image_max_pixels,
    }
    statistics = {name: image[name] for name in ("image_mean", "image_std") if name in image}
    video = {
        **statistics,
        **shared,
        "video_processor_type": classes.video_processor,
        **_video_bounds(processor),
        "min_frames": _MIN_FRAMES,
        "max_frames": media.video_max_frames,
        "fps": media.video_fps,
    }
    write_settings(folder / IMAGE_FILE, image)
    write_settings(folder / VIDEO_FILE, video)


def _video_bounds(processor: Processor) -> dict[str, Any]:
    """The bounds of pixels as the family's processor of videos takes them."""
    vision, media = processor.config.vision, processor.media
    if not processor.family.torch_media.bounds_frames:
        # It counts the pixels of all frames; a run those of pairs.
        most = media.video_max_total_pixels * vision.frames_per_patch
        return {"size": _size(media.video_min_pixels * _MIN_FRAMES, most)}
    unit_px = vision.patch_px * vision.merge_size
    return {
        "size": video_size(processor),
        "cap_pixels_per_frame": True,
        "max_video_tokens": round(media.video_max_total_pixels / unit_px**2 / _SHARE_OF_CONTEXT),
    }


def _write_tile_processor(folder: Path, processor: Processor) -> None:
    """The settings of a processor of tiles, which are those of its model, as the hub keeps them:
    older folders say nothing of how many tokens an image becomes."""
    vision, classes = processor.config.vision, processor.family.torch_media
    joint = read_settings(folder / JOINT_FILE)
    image = {
        **image_settings(folder),
        "processor_class": classes.processor,
        "image_processor_type": classes.image_processor,
        "size": {"shortest_edge": vision.tile_px},
        "crop_size": {"height": vision.tile_px, "width": vision.tile_px},
        "image_grid_pinpoints": [list(size) for size in vision.pinpoints],
    }
    joint = {
        **{name: value for name, value in joint.items() if name != "image_processor"},
        "processor_class": classes.processor,
        "patch_size": vision.patch_px,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    write_settings(folder / IMAGE_FILE, image)
    write_settings(folder / JOINT_FILE, joint)


def video_size(processor: Processor) -> dict[str, int]:
    """The bounds of a frame's pixels, as transformers spells them."""
    return _size(processor.media.video_min_pixels, processor.media.video_max_pixels)


def read_settings(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write_settings(file: Path, content: Any) -> None:
    """Write a JSON file, and the folder it is in."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _size(least: int, most: int) -> dict[str, int]:
    return {"shortest_edge": least, "longest_edge": most}


def _audio_settings(processor: Processor) -> dict[str, Any]:
    """Of the public Omni checkpoints, for those that do not bring theirs."""
    if processor.config.audio is None:
        return {}
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": processor.config.audio.num_mels,
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP_SAMPLES,
        "n_fft": FFT_SAMPLES,
        "chunk_length": 300,
        "dither": 0.0,
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
