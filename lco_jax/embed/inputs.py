"""Values that Python programs hold, as items: texts, files, images, arrays, messages."""

import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from lco_jax.data.errors import RecordError, at, belonging_to
from lco_jax.data.media.kinds import kind_of_data_uri, kind_of_name
from lco_jax.data.media.sources import (
    Adjusted,
    Frames,
    MediaOptions,
    MediaSource,
    Pixels,
    PlainSource,
)
from lco_jax.data.records import Item, describe, parse_id, require_text
from lco_jax.embed.arrays import as_numpy, holds_bytes, is_array, pixels_of, waveform_of
from lco_jax.embed.decoders import decoded, is_decoder
from lco_jax.embed.media_fields import (
    KINDS,
    OPTION_KEYS,
    OPTIONS,
    address_of,
    only_source,
    options_of,
    parts_of,
    sniffed,
)
from lco_jax.embed.one_or_many import is_message
from lco_jax.models.tokens import Kind

log = logging.getLogger(__name__)

Input = (
    str
    | bytes
    | os.PathLike
    | Image.Image
    | np.ndarray
    | Item
    | Mapping[str, Any]
    | list[Mapping[str, Any]]
)
"""What becomes one vector; see `InputReader`."""

TAKEN = (
    "a text, a path or data URI of a medium, a pathlib.Path, bytes of a file, a Pillow image, a "
    "uint8 array of an image, {'array', 'sampling_rate'} of a waveform, an object with any of "
    "'text', 'image', 'audio', 'video' (and 'image_path', ...), chat messages, or an Item"
)
_ITEM_KEYS = ("text", *KINDS, *(f"{kind}_path" for kind in KINDS), "id", *OPTION_KEYS)
_LONGEST_PATH = 1024


class InputReader:
    """Makes items of what `Embedder.encode` is given.

    A string that names an existing file with the ending of a medium, or is a `data:` URI of one, is
    that medium; every other string is a text, and so is `{"text": string}` always. A string that
    looks like a path of a medium and names no file is said once. Media keep the order in which they
    are listed; of an item, kinds and text follow the order of the recipe.
    """

    def __init__(self, notices: set[str]):
        """`notices` has what was said before, to which this adds."""
        self._notices = notices
        self._held: dict[int, Pixels] = {}  # the same image twice is read under one lock

    def items(self, inputs: Sequence[Any]) -> list[Item]:
        """The item of each input.

        Raises:
            RecordError: an input is none of what is taken, or an empty one; the message names it.
        """
        found = self.try_items(inputs)
        for item in found:
            if isinstance(item, RecordError):
                raise item
        return found

    def try_items(self, inputs: Sequence[Any]) -> list[Item | RecordError]:
        """As `items`, with what is wrong with an input in its place."""
        return [self._try_item(value, f"input {index}") for index, value in enumerate(inputs)]

    def _try_item(self, value: Any, field: str) -> Item | RecordError:
        try:
            with belonging_to(field):
                return self._item(value, field)
        except RecordError as error:
            return at(field, error)

    def _item(self, value: Any, field: str) -> Item:
        if isinstance(value, Item):
            return value
        if isinstance(value, str):
            item = self._of_string(value, field)
        elif is_message(value):
            item = self._of_messages([value], field)
        elif isinstance(value, list | tuple) and value and all(map(is_message, value)):
            item = self._of_messages(value, field)
        elif isinstance(value, Mapping) and "array" not in value:
            item = self._of_mapping(value, field)
        else:
            item = _item_of([self._bare(value, field)])
        if item.is_empty:
            raise ValueError(f"{field} is empty; give it a text or a medium")
        return item

    def _of_string(self, value: str, field: str) -> Item:
        kind = None
        if len(value) <= _LONGEST_PATH and "\n" not in value:
            kind = kind_of_name(value)
            if kind and not self._exists(value):
                kind = None
        kind = kind or kind_of_data_uri(value)
        if kind is None:
            return Item(require_text(value, field))
        return _item_of([(kind, address_of(value, field))])

    def _exists(self, value: str) -> bool:
        """Whether a string with the ending of a medium is its path; if it might be, say that it is
        not."""
        if value.startswith(("gs://", "file://")):
            return True
        try:
            if os.path.exists(value) and not os.path.isdir(value):
                return True
        except ValueError:  # a zero byte
            return False
        if "path" not in self._notices and (" " not in value or os.path.dirname(value)):
            self._notices.add("path")
            reason = "web addresses are not fetched" if "://" in value else "there is no such file"
            log.warning(
                "%r is embedded as a text, though it looks like the path of a medium: %s. Write "
                "{'text': ...} for texts like it; this is said once",
                value[:200],
                reason,
            )
        return False

    def _bare(self, value: Any, field: str) -> tuple[Kind, MediaSource]:
        """A medium that says by its type what it is."""
        if is_decoder(value):
            value = decoded(value)
        if isinstance(value, Image.Image):
            return "image", self._pixels(value, field)
        if isinstance(value, bytes | bytearray | memoryview):
            content = bytes(value)
            return sniffed(content, field), content
        if isinstance(value, os.PathLike):
            path = os.fspath(value)
            return kind_of_name(path) or sniffed(path, field), path
        if isinstance(value, Mapping):
            kind = "audio" if "sampling_rate" in value else "video"
            if kind == "video" and "video_metadata" not in value:
                raise ValueError(
                    f"{field} has an 'array' without 'sampling_rate' (of audio); images and "
                    "frames are {'image': array} and {'video': array}"
                )
            return kind, self._medium(kind, value, field)
        if is_array(value) and (value.ndim == 3 or (value.ndim == 2 and holds_bytes(value))):
            return "image", pixels_of(value, field)
        if is_array(value):
            raise ValueError(
                f"{field} is an array of shape {tuple(value.shape)} and {value.dtype}; say what it "
                "is: {'array': x, 'sampling_rate': 16000}, {'image': x} or {'video': x, 'fps': 2}"
            )
        if isinstance(value, list | tuple):
            raise ValueError(
                f"{field} is a {type(value).__name__}; say what it is: {{'image': [...]}} for "
                "several images of one item, {'video': [...]} for frames, or a list of chat "
                "messages"
            )
        raise ValueError(f"{field} is {describe(value)}, expected {TAKEN}")

    def _of_mapping(self, value: Mapping[str, Any], field: str) -> Item:
        for key in value:
            if key not in _ITEM_KEYS:
                near = difflib.get_close_matches(str(key), _ITEM_KEYS, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {list(_ITEM_KEYS)}"
                raise ValueError(f"{field} has an unknown key {key!r}; {hint}")
        text = value.get("text")
        text = "" if text is None else require_text(text, f"{field}.text")
        given = options_of(value, field)
        media: list[tuple[Kind, MediaSource]] = []
        for kind in KINDS:
            for key in (kind, f"{kind}_path"):
                for part in parts_of(key, value.get(key)):
                    own = {name: x for name, x in given.items() if kind in OPTIONS[name]}
                    media.append((kind, self._medium(kind, part, f"{field}.{key}", own)))
        for name in given:
            if not {kind for kind, _ in media} & set(OPTIONS[name]):
                raise ValueError(f"{field}.{name} is for {' and '.join(OPTIONS[name])} only")
        return _item_of(media, text, parse_id(dict(value), f"{field}.id"))

    def _of_messages(self, messages: Sequence[Mapping[str, Any]], field: str) -> Item:
        if len(messages) != 1 or messages[0]["role"] != "user":
            roles = [message["role"] for message in messages]
            raise ValueError(
                f"{field} has messages of {roles}; the recipe is one user turn, so give the one "
                "message of the user"
            )
        content = messages[0]["content"]
        parts = (
            content if isinstance(content, list | tuple) else [{"type": "text", "text": content}]
        )
        texts: list[str] = []
        media: list[tuple[Kind, MediaSource]] = []
        for index, part in enumerate(parts):
            place = f"{field}.content[{index}]"
            if isinstance(part, str):
                part = {"type": "text", "text": part}
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "text":
                texts.append(require_text(part.get("text"), f"{place}.text"))
                continue
            kind = str(kind).removesuffix("_url")
            if kind not in KINDS:
                raise ValueError(
                    f"{place} is {describe(part)}, expected an object whose 'type' is 'text', "
                    "'image', 'audio' or 'video'"
                )
            given = {key: x for key, x in part.items() if key != "type"}
            media.append((kind, self._medium(kind, given, place)))
        return _item_of(media, "".join(texts))

    def _medium(
        self, kind: Kind, value: Any, field: str, given: Mapping[str, Any] | None = None
    ) -> MediaSource:
        """A medium of a known kind, with the options that it has itself or is `given`."""
        options, fps = dict(given or {}), None
        if is_decoder(value):
            value = decoded(value)
        if isinstance(value, Mapping):
            options |= options_of(value, field, kind)
            value, fps = only_source(kind, value, field)
        source = self._source(kind, value, field)
        try:
            if isinstance(source, Frames):
                # Of frames it is the rate at which they were taken.
                source = replace(source, fps=options.pop("fps", fps))
            if not options:
                return source
            return Adjusted(source, MediaOptions(**options))
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error

    def _source(self, kind: Kind, value: Any, field: str) -> PlainSource:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, str):
            return address_of(require_text(value, field), field)
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if kind == "image" and isinstance(value, Image.Image):
            return self._pixels(value, field)
        if kind == "image" and is_array(value):
            return pixels_of(value, field)
        if kind == "audio" and isinstance(value, Mapping) and "sampling_rate" in value:
            return waveform_of(value, field)
        if kind == "video" and (isinstance(value, list | tuple) or is_array(value)):
            frames = as_numpy(value, field) if is_array(value) else value
            if not len(frames):
                raise ValueError(f"{field} has no frames")
            images = [
                self._source("image", frame, f"{field}[{index}]")
                for index, frame in enumerate(frames)
            ]
            return Frames(tuple(images), None, f"{field} ({len(images)} frames)")
        if kind == "audio" and is_array(value):
            raise ValueError(
                f"{field} is an array without its rate; give "
                "{'array': samples, 'sampling_rate': 16000}"
            )
        raise ValueError(
            f"{field} is {describe(value)}, expected {kind}: a path, bytes of a file, or values"
        )

    def _pixels(self, image: Image.Image, field: str) -> Pixels:
        if id(image) not in self._held:
            name = f"{field} (a Pillow image of {image.width} x {image.height} pixels)"
            self._held[id(image)] = Pixels(image, name)
        return self._held[id(image)]


def _item_of(
    media: Sequence[tuple[Kind, MediaSource]], text: str = "", id: str | None = None
) -> Item:
    sources = {kind: tuple(x for own, x in media if own == kind) for kind in KINDS}
    return Item(text, sources["image"], sources["audio"], sources["video"], id)
