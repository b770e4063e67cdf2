"""What a checkpoint says of the sizes of images, and how mteb's own wrapper reads media by it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lco_jax.config import MediaConfig
from lco_jax.data.encode.tile_settings import check_tile_settings
from lco_jax.data.media.config import PixelConfig
from lco_jax.models.config import DeepConfig, ModelConfig, TileConfig, read_config
from lco_jax.models.json_files import Schema, check, naming, read_object

_FILE = "preprocessor_config.json"
_VIDEO_FILE = "video_preprocessor_config.json"
_JOINT_FILE = "processor_config.json"
"""Newer checkpoints keep the settings of all media in it; it prevails."""
_SPELLINGS = {
    "image_min_pixels": ("shortest_edge", "min_pixels"),
    "image_max_pixels": ("longest_edge", "max_pixels"),
}
"""Of the bounds of an image's pixels; the second prevails, and older files have it alone."""

_Pixels = Annotated[int, Field(ge=1, le=1 << 40)]
_Values = Annotated[float, Field(ge=-1000, le=1000)]
_Deviation = Annotated[float, Field(gt=0, le=1000)]
_DEFAULTS = {"image_mean": list(PixelConfig.mean), "image_std": list(PixelConfig.std)}
_DEFAULTS_OF_DEEP_VIDEOS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
"""Where a file of videos says nothing of them."""


class _Size(Schema):
    shortest_edge: _Pixels | None = None
    longest_edge: _Pixels | None = None


class _Heard(Schema):
    """How audio is read: as on the hub."""

    feature_size: int | None = None
    sampling_rate: Literal[16000] | None = None
    hop_length: Literal[160] | None = None
    n_fft: Literal[400] | None = None
    dither: Annotated[float, Field(ge=0, le=0)] | None = None


class _Settings(_Heard):
    """How images or the frames of videos are read, and audio, whose settings stand in the same
    file; what is not read must be as on the hub."""

    image_mean: Annotated[list[_Values], Field(min_length=3, max_length=3)] | None = None
    image_std: Annotated[list[_Deviation], Field(min_length=3, max_length=3)] | None = None
    min_pixels: _Pixels | None = None
    max_pixels: _Pixels | None = None
    size: _Size | None = None
    patch_size: int | None = None
    merge_size: int | None = None
    temporal_patch_size: int | None = None
    do_resize: Literal[True] | None = None
    do_rescale: Literal[True] | None = None
    do_normalize: Literal[True] | None = None
    do_center_crop: Literal[False] | None = None
    resample: Literal[3] | None = Field(None, description="3 is bicubic")
    rescale_factor: Annotated[float, Field(ge=0.00392, le=0.00393)] | None = None


class _Joint(Schema):
    image_processor: dict | None = None
    video_processor: dict | None = None
    feature_extractor: dict | None = None


def wrapper_media(folder: Path) -> MediaConfig:
    """The sizes and rates of mteb's `LCOEmbedding`: images within the bounds of the checkpoint,
    which on the hub allow 16,384 tokens, and at most 64 frames of a video and 300 s of audio.

    Source: mteb 2.26 LCOEmbedding; transformers Qwen2VLImageProcessor, Qwen2_5OmniProcessor, whose
    own bounds of frames go before those of the checkpoint.
    """
    said = image_settings(folder)
    size = said.get("size")
    said = {**(size if isinstance(size, dict) else {}), **said}
    return MediaConfig(
        **{
            field: said[name]
            for field, names in _SPELLINGS.items()
            for name in names
            if said.get(name) is not None
        }
    )


def image_settings(folder: Path) -> dict[str, Any]:
    """The settings of a checkpoint's image processor; empty if it has none.

    Raises:
        ValueError: a file is damaged, or asks for what is not supported; with file and field.
    """
    joint = _read(folder / _JOINT_FILE)
    check(_Joint, joint, folder / _JOINT_FILE)
    config = read_config(folder) if (folder / "config.json").exists() else None
    if config is not None and isinstance(config.vision, TileConfig):
        return _of_tiles(folder, joint, config.vision)
    sizes = _sizes(config)
    found, images = {}, {}
    for part, file in (
        ("feature_extractor", _FILE),
        ("video_processor", _VIDEO_FILE),
        ("image_processor", _FILE),
    ):
        where, content = folder / file, _read(folder / file)
        if joint.get(part) is not None:
            where, content = f"{folder / _JOINT_FILE}: {part}", joint[part]
        elif not content and part == "image_processor":
            where, content = folder / _JOINT_FILE, joint
        found[part] = check(_Settings, content, where)
        with naming(where):
            _check_sizes(found[part], sizes)
        images = content
    if found["video_processor"].model_fields_set:
        _check_statistics(folder, found["image_processor"], found["video_processor"], config)
    return images


def processor_settings(folder: Path) -> dict[str, Any]:
    """The settings of a checkpoint's processors of images and audio, as one file holds them: of
    images what `image_settings` gives, wherever that stands.

    Raises:
        ValueError: as `image_settings`.
    """
    images, joint = image_settings(folder), _read(folder / _JOINT_FILE)
    others = _read(folder / _FILE)
    if joint.get("image_processor") is not None:
        of_images = _Settings.model_fields.keys() - _Heard.model_fields.keys()
        others = {name: value for name, value in others.items() if name not in of_images}
    return {**others, **(joint.get("feature_extractor") or {}), **images}


def _of_tiles(folder: Path, joint: dict[str, Any], vision: TileConfig) -> dict[str, Any]:
    where, images = folder / _FILE, _read(folder / _FILE)
    if joint.get("image_processor") is not None:
        where, images = f"{folder / _JOINT_FILE}: image_processor", joint["image_processor"]
    check_tile_settings(images, joint, vision, (where, folder / _JOINT_FILE))
    return images


def _sizes(config: ModelConfig | None) -> dict[str, int]:
    """How the towers of a model read media; empty if there is none."""
    if config is None:
        return {}
    expected = {}
    if config.vision is not None:
        expected = {
            "patch_size": config.vision.patch_px,
            "merge_size": config.vision.merge_size,
            "temporal_patch_size": config.vision.frames_per_patch,
        }
    if config.audio is not None:
        expected["feature_size"] = config.audio.num_mels
    return expected


def _check_sizes(said: _Settings, expected: dict[str, int]) -> None:
    """That media are cut as the towers read them."""
    for name, value in expected.items():
        if getattr(said, name) not in (None, value):
            raise ValueError(f"{name}={getattr(said, name)}, and the model's is {value}")


def _check_statistics(
    folder: Path, images: _Settings, videos: _Settings, config: ModelConfig | None
) -> None:
    """That videos, of which a file of their own says something, are normalised as images are.

    Source: transformers Qwen2VLImageProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
    (defaults).
    """
    is_deep = config is not None and isinstance(config.vision, DeepConfig)
    defaults = _DEFAULTS_OF_DEEP_VIDEOS if is_deep else _DEFAULTS
    for name, default in _DEFAULTS.items():
        of_images = getattr(images, name) or default
        of_videos = getattr(videos, name) or defaults[name]
        if of_videos != of_images:
            raise ValueError(
                f"{folder}: {name}={of_videos} of videos and {of_images} of images differ, which "
                "is not supported; where one of them is not written, it is the default of "
                "transformers"
            )


def _read(file: Path) -> dict[str, Any]:
    return read_object(file) if file.exists() else {}
