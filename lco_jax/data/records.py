"""Items, triplets and exchanges, and how they are made of JSON values."""

import difflib
import json
import os
import reprlib
from collections.abc import KeysView
from dataclasses import dataclass

import numpy as np
from etils import epath

from lco_jax.data.media.sources import MediaSource as MediaSource

_ITEM_KEYS = dict.fromkeys(("text", "image_path", "audio_path", "video_path", "id")).keys()
_TRIPLET_KEYS = dict.fromkeys(("anchor", "positive", "negative", "negatives", "id")).keys()
_EXCHANGE_KEYS = dict.fromkeys(("prompt", "response", "id")).keys()
_TEXT_KEYS = dict.fromkeys(("text", "id")).keys()


@dataclass(frozen=True, slots=True)
class Item:
    """What becomes one vector: a text, media, or both."""

    text: str = ""
    images: tuple[MediaSource, ...] = ()
    audios: tuple[MediaSource, ...] = ()
    videos: tuple[MediaSource, ...] = ()
    id: str | None = None

    @property
    def media(self) -> dict[str, tuple[MediaSource, ...]]:
        """By kind, with those of which there are none."""
        return {"image": self.images, "audio": self.audios, "video": self.videos}

    @property
    def has_media(self) -> bool:
        return bool(self.images or self.audios or self.videos)

    @property
    def is_empty(self) -> bool:
        """Neither media nor a text of more than white space."""
        return not (self.text.strip() or self.has_media)


@dataclass(frozen=True, slots=True)
class Triplet:
    """A training example: an anchor, its positive, and any number of hard negatives."""

    anchor: Item
    positive: Item
    negatives: tuple[Item, ...] = ()
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """An example of a generative stage: what is shown and asked, and what is to be answered."""

    prompt: Item
    """Empty for plain text, which is learned as an answer to nothing."""
    response: str
    id: str | None = None


Record = Triplet | Exchange

_MOST_COUNTED = 15
"""Media of a kind in a record; more count as many."""


def media_of(record: Record) -> int:
    """Which media a record has, as a number: equal for records with as many of each kind."""
    if isinstance(record, Exchange):
        items: tuple[Item, ...] = (record.prompt,)
    else:
        items = (record.anchor, record.positive, *record.negatives)
    with_media = [item for item in items if item.has_media]
    found = 0
    for kind in ("videos", "audios", "images"):
        count = sum(len(getattr(item, kind)) for item in with_media)
        found = found * (_MOST_COUNTED + 1) + min(count, _MOST_COUNTED)
    return found


def parse_triplet(value: object, folder: epath.Path) -> Triplet:
    """A triplet from a JSON object; relative media paths are taken from `folder`.

    Source: LCO-Emb released trainers (`anchor`, `positive`, `negative` with `text`, `image_path`);
    other media, several negatives and plain strings for items are additions.

    Raises:
        ValueError: the value is no triplet; the message names the field.
    """
    record = _require_object(value, "the line", _TRIPLET_KEYS)
    for key in ("anchor", "positive"):
        if record.get(key) is None:
            raise ValueError(f"lacks {key!r}; a triplet needs at least 'anchor' and 'positive'")
    negatives = []
    for key in ("negative", "negatives"):
        given = record.get(key)
        if isinstance(given, list):
            negatives += [
                parse_item(item, folder, f"{key}[{index}]") for index, item in enumerate(given)
            ]
        elif given is not None:
            negatives.append(parse_item(given, folder, key))
    return Triplet(
        anchor=parse_item(record["anchor"], folder, "anchor"),
        positive=parse_item(record["positive"], folder, "positive"),
        negatives=tuple(negatives),
        id=parse_id(record, "id"),
    )


def parse_exchange(value: object, folder: epath.Path) -> Exchange:
    """A prompt with its response from a JSON object; relative media paths are taken from `folder`.

    A string, or an object with nothing but a `text`, is plain text.

    Raises:
        ValueError: the value is no exchange; the message names the field.
    """
    if isinstance(value, str):
        value = {"text": value}
    if isinstance(value, dict) and "text" in value:
        record = _require_object(value, "the line", _TEXT_KEYS)
        prompt, field = Item(), "text"
    else:
        record = _require_object(value, "the line", _EXCHANGE_KEYS)
        for key in ("prompt", "response"):
            if record.get(key) is None:
                raise ValueError(f"lacks {key!r}; expected 'prompt' and 'response', or 'text'")
        prompt, field = parse_item(record["prompt"], folder, "prompt"), "response"
    response = require_text(record[field], field)
    if not response.strip():
        raise ValueError(f"{field} is empty; it is what the model is to learn")
    return Exchange(prompt, response, parse_id(record, "id"))


def parse_item(value: object, folder: epath.Path, field: str = "item") -> Item:
    """An item from a JSON object or a plain string; `field` is what errors call it.

    Raises:
        ValueError: the value is no item, or an empty one.
    """
    if isinstance(value, str):
        value = {"text": value}
    if type(value) is dict and len(value) == 1:  # nearly all; all else would be found absent
        text = value.get("text")
        if type(text) is str and text and not text.isspace():
            return Item(text if text.isascii() else require_text(text, f"{field}.text"))
    record = _require_object(value, field, _ITEM_KEYS)
    text = record.get("text")
    item = Item(
        text="" if text is None else require_text(text, f"{field}.text"),
        images=_parse_paths(record, "image_path", folder, field),
        audios=_parse_paths(record, "audio_path", folder, field),
        videos=_parse_paths(record, "video_path", folder, field),
        id=parse_id(record, f"{field}.id"),
    )
    if item.is_empty:
        raise ValueError(f"{field} is empty; give it a text or the path of a medium")
    return item


def _require_object(value: object, field: str, keys: KeysView[str]) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{field} is {describe(value)}, expected an object with {list(keys)}")
    if value.keys() <= keys:
        return value
    for key in value:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {list(keys)}"
            raise ValueError(f"{field} has an unknown key {key!r}; {hint}")
    return value


def require_text(value: object, field: str) -> str:
    """The value, if it is a text; `field` is what errors call it."""
    if not isinstance(value, str):
        raise ValueError(f"{field} is {describe(value)}, expected a string")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:  # "\ud83d" alone: JSON can say it, no text contains it
        raise ValueError(f"{field} has half a surrogate pair at {error.start}") from error
    return value


def _parse_paths(record: dict, key: str, folder: epath.Path, field: str) -> tuple[str, ...]:
    given = record.get(key)
    if given is None:
        return ()
    paths = given if isinstance(given, list) else [given]
    return tuple(
        path if is_address(path) else os.fspath(folder / path)  # an absolute path stays itself
        for path in (_require_path(path, f"{field}.{key}") for path in paths)
        if path
    )


def is_address(path: str) -> bool:
    """Whether a path belongs to no folder: it is remote, or holds what it stands for."""
    return "://" in path or path.startswith("data:")


def _require_path(value: object, field: str) -> str:
    return require_text(os.fspath(value) if isinstance(value, os.PathLike) else value, field)


def parse_id(record: dict, field: str) -> str | None:
    """The id of a record, if it has one; `field` is what errors call it."""
    given = record.get("id")
    if given is not None and not isinstance(given, str | int | np.integer):
        raise ValueError(f"{field} is {describe(given)}, expected a string or an integer")
    return None if given is None else require_text(str(given), field)


def describe(value: object) -> str:
    """The type of a value, and how it begins."""
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        shown = reprlib.repr(value)
    return f"of type {type(value).__name__} ({encodable(shown[:40])})"


def encodable(text: str) -> str:
    """A text that any file can hold: what UTF-8 cannot say, such as half a surrogate pair or a byte
    of a file name, is written as an escape.
    """
    return text.encode(errors="backslashreplace").decode()
