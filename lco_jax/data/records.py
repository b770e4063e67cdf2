"""Items and triplets, and how they are read from JSON Lines."""

import difflib
import hashlib
import itertools
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from etils import epath

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

MediaSource = str | bytes
"""The path of an image, clip or sound (local, or remote such as `gs://`), or the file's content."""

_LOG_EVERY_LINES = 100_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ITEM_KEYS = ("text", "image_path", "audio_path", "video_path", "id")
_TRIPLET_KEYS = ("anchor", "positive", "negative", "negatives", "id")


@dataclass(frozen=True, slots=True)
class Item:
    """What becomes one vector: a text, media, or both."""

    text: str = ""
    images: tuple[MediaSource, ...] = ()
    audios: tuple[MediaSource, ...] = ()
    videos: tuple[MediaSource, ...] = ()
    id: str | None = None

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


class JsonlTriplets(Sequence[Triplet]):
    """The triplets of a JSON Lines file: all checked once at the start, then read when asked for.

    Any number of threads may read at the same time.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no record, or a bad one (`FILE:LINE: what is wrong`).
    """

    digest: str
    """Hash of the bytes that hold the records."""

    def __init__(self, path: str, max_examples: int | None = None):
        self._file = _LineFile(path)
        lines = []
        for line in itertools.islice(self._file.find_lines(), max_examples):
            self._file.parse_line(line, parse_triplet)
            lines.append(line)
            if len(lines) % _LOG_EVERY_LINES == 0:
                _logger.info("%s: %d lines checked", path, len(lines))
        if not lines:
            raise ValueError(f"{path}: holds no record; expected one JSON object a line")
        self._lines = np.array(lines, np.int64)
        self.digest = self._file.hash_until(lines[-1].stop)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Triplet:
        return self._file.parse_line(_Line(*self._lines[index].tolist()), parse_triplet)


def read_items(path: str) -> list[Item]:
    """The items of a JSON Lines file, one object or string a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is bad (`FILE:LINE: what is wrong`).
    """
    items = try_read_items(path)
    for item in items:
        if isinstance(item, ValueError):
            raise item
    return items


def try_read_items(path: str) -> list[Item | ValueError]:
    """As `read_items`, with the error in the place of a bad line.

    Raises:
        FileNotFoundError: there is no such file.
    """
    file = _LineFile(path)
    items: list[Item | ValueError] = []
    for line in file.find_lines():
        try:
            items.append(file.parse_line(line, parse_item))
        except ValueError as error:
            items.append(error)
    return items


# ---------------------------------------------------------------------------- lines of a file


class _Line(NamedTuple):
    number: int
    start: int
    stop: int


class _LineFile:
    """The bytes of a JSON Lines file: mapped if it is local, fetched as a whole if remote."""

    def __init__(self, path: str):
        location = epath.Path(path)
        if not location.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self._path = path
        self._folder = location.parent
        is_remote = "://" in os.fspath(path)
        if is_remote or not location.stat().length:  # an empty file cannot be mapped
            self._bytes = location.read_bytes()
        else:
            with open(location, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def find_lines(self) -> Iterator[_Line]:
        """Where the lines are that hold more than white space."""
        data = self._bytes
        start = len(_BYTE_ORDER_MARK) if data[:3] == _BYTE_ORDER_MARK else 0
        number = 1
        while start < len(data):
            newline = data.find(b"\n", start)
            stop = len(data) if newline < 0 else newline
            if data[start:stop].strip():
                yield _Line(number, start, stop)
            start, number = stop + 1, number + 1

    def parse_line(self, line: _Line, parse: Callable[[object, epath.Path], _T]) -> _T:
        """`parse` applied to a line's JSON value and the file's folder; errors say where."""
        try:
            return parse(_load_json(self._bytes[line.start : line.stop]), self._folder)
        except ValueError as error:
            raise ValueError(f"{self._path}:{line.number}: {error}") from error

    def hash_until(self, stop: int) -> str:
        with memoryview(self._bytes) as data, data[:stop] as used:
            return hashlib.blake2b(used, digest_size=8).hexdigest()


def _load_json(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from error


# --------------------------------------------------------------------------- values to records


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
        id=_parse_id(record, "id"),
    )


def parse_item(value: object, folder: epath.Path, field: str = "item") -> Item:
    """An item from a JSON object or a plain string; `field` is what errors call it.

    Raises:
        ValueError: the value is no item, or an empty one.
    """
    if isinstance(value, str):
        value = {"text": value}
    record = _require_object(value, field, _ITEM_KEYS)
    text = record.get("text")
    item = Item(
        text="" if text is None else _require_text(text, f"{field}.text"),
        images=_parse_paths(record, "image_path", folder, field),
        audios=_parse_paths(record, "audio_path", folder, field),
        videos=_parse_paths(record, "video_path", folder, field),
        id=_parse_id(record, f"{field}.id"),
    )
    if item.is_empty:
        raise ValueError(f"{field} is empty; give it a text or the path of a medium")
    return item


def _require_object(value: object, field: str, keys: Sequence[str]) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{field} is {_describe(value)}, expected an object with {list(keys)}")
    for key in value:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {list(keys)}"
            raise ValueError(f"{field} has an unknown key {key!r}; {hint}")
    return value


def _require_text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{field} is {_describe(value)}, expected a string")
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
        path if "://" in path else os.fspath(folder / path)  # an absolute path stays itself
        for path in (_require_text(path, f"{field}.{key}") for path in paths)
        if path
    )


def _parse_id(record: dict, field: str) -> str | None:
    given = record.get("id")
    if given is not None and not isinstance(given, str | int):
        raise ValueError(f"{field} is {_describe(given)}, expected a string or an integer")
    return None if given is None else str(given)


def _describe(value: object) -> str:
    return f"of type {type(value).__name__} ({json.dumps(value, ensure_ascii=False)[:40]})"
