"""JSON Lines files, read at random access; errors name the line."""

import copy
import hashlib
import itertools
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from etils import epath

from lco_jax.data.records import Item, parse_item

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_LOG_EVERY_LINES = 100_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonlRecords(Sequence[_T]):
    """The records of a JSON Lines file: all checked once at the start, then read when asked for.

    Any number of threads may read at the same time.

    Args:
        parse: makes a record of a line's JSON value and the file's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no record, or a bad one (`FILE:LINE: what is wrong`).
    """

    digest: str
    """Hash of the bytes that hold the records."""

    def __init__(
        self,
        path: str,
        parse: Callable[[object, epath.Path], _T],
        max_examples: int | None = None,
    ):
        self._file, self._parse = _LineFile(path), parse
        lines = []
        for line in itertools.islice(self._file.find_lines(), max_examples):
            self._file.parse_line(line, parse)
            lines.append(line)
            if len(lines) % _LOG_EVERY_LINES == 0:
                _logger.info("%s: %d lines checked", path, len(lines))
        if not lines:
            raise ValueError(f"{path}: holds no record; expected one JSON object a line")
        self._lines = np.array(lines, np.int64)
        self.digest = self._file.hash_until(lines[-1].stop)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> _T:
        return self._file.parse_line(_Line(*self._lines[index].tolist()), self._parse)


class ItemLines(Sequence[Item | ValueError]):
    """The items of a JSON Lines file, one object or string a line, and in the place of a bad line
    what is wrong (`FILE:LINE: …`). A line is parsed when it is asked for; slices are views.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str):
        self._file = _LineFile(path)
        self._lines = np.array(list(self._file.find_lines()), np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int | slice) -> "Item | ValueError | ItemLines":
        if isinstance(index, slice):
            part = copy.copy(self)
            part._lines = self._lines[index]
            return part
        try:
            return self._file.parse_line(_Line(*self._lines[index].tolist()), parse_item)
        except ValueError as error:
            return error

    @property
    def digest(self) -> str:
        """Hash of all that the items of the file depend on: its bytes, and the folder of media."""
        folder = os.fspath(self._file.folder)
        return f"{folder} {self._file.hash_until(self._lines[-1, 2]) if len(self) else ''}"


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
        self.folder = location.parent
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
            return parse(_load_json(self._bytes[line.start : line.stop]), self.folder)
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
