"""The fields under which objects hold media, and what a medium may ask for beside them."""

import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.kinds import kind_of_content, kind_of_name
from lco_jax.data.media.sources import content_of_data_uri, path_of_uri
from lco_jax.data.records import describe
from lco_jax.embed.arrays import is_array
from lco_jax.embed.decoders import is_decoder
from lco_jax.embed.input_errors import of_field
from lco_jax.models.tokens import Kind

KINDS: tuple[Kind, ...] = ("image", "audio", "video")
OPTIONS: dict[str, tuple[Kind, ...]] = {
    "min_pixels": ("image", "video"),
    "max_pixels": ("image", "video"),
    "total_pixels": ("video",),
    "fps": ("video",),
    "min_frames": ("video",),
    "max_frames": ("video",),
    "start": ("audio", "video"),
    "end": ("audio", "video"),
}
"""The fields of `MediaOptions`, and the kinds of media that may ask for them."""
_OTHER_NAMES = {"video_start": "start", "video_end": "end"}
"""Of qwen-vl-utils."""
OPTION_KEYS = (*OPTIONS, *_OTHER_NAMES)
_WHOLE = ("min_pixels", "max_pixels", "total_pixels", "min_frames", "max_frames")


def options_of(value: Mapping[str, Any], field: str, kind: Kind | None = None) -> dict[str, Any]:
    """The options that an object gives beside its media.

    Args:
        field: what errors call the object.
        kind: of its one medium (None: it may have several).

    Raises:
        ValueError: one is no number, or is not for media of this kind.
    """
    options = {}
    for key, given in value.items():
        name = _OTHER_NAMES.get(key, key)
        if name not in OPTIONS or given is None:
            continue
        if kind is not None and kind not in OPTIONS[name]:
            raise ValueError(f"{field}.{key} is for {' and '.join(OPTIONS[name])} only")
        is_number = isinstance(given, Real | np.number) and not isinstance(given, bool | np.bool_)
        if not is_number or (name in _WHOLE and given % 1):
            wanted = "a whole number" if name in _WHOLE else "a number"
            raise ValueError(f"{field}.{key} is {describe(given)}, expected {wanted}")
        options[name] = int(given) if name in _WHOLE else float(given)
    return options


def parts_of(key: str, value: Any) -> list[Any]:
    """The media in the field `key` of an object: none, one, or each of a list. A list of images
    under `video` is one video, of these frames."""
    if value is None or (isinstance(value, str) and not value):
        return []
    if not isinstance(value, list | tuple):
        return [value]
    if key == "video" and value and not all(map(_is_video, value)):
        return [value]
    return [part for part in value if not (isinstance(part, str) and not part)]


def _is_video(value: Any) -> bool:
    """Whether a member of a list is a video, and not a frame of one."""
    if isinstance(value, str | os.PathLike):
        name = os.fspath(value)
        return kind_of_name(name) != "image" or name.lower().endswith(".gif")
    is_whole = isinstance(value, Mapping | list | tuple) or is_decoder(value)
    return is_whole or (is_array(value) and value.ndim == 4)


def only_source(kind: Kind, value: Mapping[str, Any], field: str) -> tuple[Any, float | None]:
    """The medium in an object such as `{"image": ..., "max_pixels": ...}`, and the rate of frames
    that it says, if it does.

    Raises:
        ValueError: an unknown field, or not one medium.
    """
    names = (kind, f"{kind}_url", f"{kind}_path", "url", "path", "bytes", "array")
    known = (*names, "sampling_rate", "video_metadata", *OPTION_KEYS)
    for key in value:
        if key not in known:
            raise ValueError(f"{field} has an unknown key {key!r}; known are {list(known)}")
    metadata = value.get("video_metadata")
    fps = metadata.get("fps") if isinstance(metadata, Mapping) else None
    found = {name: value[name] for name in names if value.get(name) is not None}
    if len(found) > 1:
        found.pop("path", None)  # `datasets` keeps it beside the content
    if len(found) != 1:
        raise ValueError(f"{field} holds {len(found)} media; expected one under {kind!r}")
    ((name, source),) = found.items()
    if name == "array" and "sampling_rate" in value:
        return {"array": source, "sampling_rate": value["sampling_rate"]}, fps
    if isinstance(source, Mapping) and set(source) == {"url"}:
        return source["url"], fps
    return source, fps


def sniffed(source: str | bytes, field: str) -> Kind:
    """What a file is by its content.

    Raises:
        MediaError: it cannot be read, or is none of the kinds.
    """
    try:
        return kind_of_content(source)
    except MediaError as error:
        raise of_field(error, field) from error


def address_of(value: str, field: str) -> str:
    """The path of a `file:` URI; any other address as it is.

    Raises:
        MediaError: it is a damaged `data:` URI, or a `file:` URI of another host.
    """
    try:
        if not value.startswith("data:"):
            return path_of_uri(value)
        content_of_data_uri(value)
    except MediaError as error:
        raise of_field(error, field) from error
    return value
