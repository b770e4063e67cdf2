"""What a checkpoint says of the sizes of images, and how mteb's own wrapper reads media by it."""

import json
from pathlib import Path
from typing import Any

from lco_jax.config import MediaConfig

_FILE = "preprocessor_config.json"
_JOINT_FILE = "processor_config.json"
"""Newer checkpoints keep the settings of all media in it; it prevails."""
_SPELLINGS = {
    "image_min_pixels": ("shortest_edge", "min_pixels"),
    "image_max_pixels": ("longest_edge", "max_pixels"),
}
"""Of the bounds of an image's pixels; the second prevails, and older files have it alone."""


def wrapper_media(folder: Path) -> MediaConfig:
    """The sizes and rates of mteb's `LCOEmbedding`: images within the bounds of the checkpoint,
    which on the hub allow 16,384 tokens, and at most 64 frames of a video and 300 s of audio.

    Source: mteb 2.26 LCOEmbedding; transformers Qwen2VLImageProcessor, Qwen2_5OmniProcessor, whose
    own bounds of frames go before those of the checkpoint.
    """
    said = image_settings(folder)
    said = {**(said.get("size") or {}), **said}
    return MediaConfig(
        **{
            field: said[name]
            for field, names in _SPELLINGS.items()
            for name in names
            if said.get(name) is not None
        }
    )


def image_settings(folder: Path) -> dict[str, Any]:
    """The settings of a checkpoint's image processor; empty if it has none."""
    return _read(folder / _FILE) | _read(folder / _JOINT_FILE).get("image_processor", {})


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
