"""JSON Lines files; errors name the line."""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import TypeVar

from etils import epath

from lco_jax.data.records import parse_item
from lco_jax.data.sources.content import Content, digest_of, open_content
from lco_jax.data.sources.table import Items, Records, Row, Table

_T = TypeVar("_T")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEEN_ROWS = 100
"""Rows whose keys count as the columns of a file."""


class JsonLines(Table):
    """A JSON Lines file, plain or `.gz`.

    Raises:
        FileNotFoundError: there is no such file.
    """

    holds_records = True

    def __init__(self, path: str):
        super().__init__(path)
        self._content: Content = open_content(path)

    @cached_property
    def columns(self) -> tuple[str, ...] | None:
        """The keys of its first objects."""
        names: dict[str, None] = {}
        for row in itertools.islice(self.find_rows(), _SEEN_ROWS):
            try:
                value = self.read(row)
            except (ValueError, RecursionError):  # it is named when it is its turn
                continue
            names |= dict.fromkeys(value if isinstance(value, dict) else ())
        return tuple(names) or None

    def find_rows(self) -> Iterator[Row]:
        """Where the lines are that hold more than white space."""
        data = self._content
        start = len(BYTE_ORDER_MARK) if data[:3] == BYTE_ORDER_MARK else 0
        number = 1
        while start < len(data):
            newline = data.find(b"\n", start)
            stop = len(data) if newline < 0 else newline
            if data[start:stop].strip():
                yield Row(number, start, stop)
            start, number = stop + 1, number + 1

    def read(self, row: Row) -> object:
        line = self._content[row.start : row.stop]
        try:
            return json.loads(decode(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from error

    def digest(self, last: Row | None) -> str:
        return digest_of(self._content, last.stop) if last else ""


def decode(content: bytes) -> str:
    """The text of bytes.

    Raises:
        ValueError: they are not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from error


class JsonlRecords(Records[_T]):
    """The records of a JSON Lines file: all checked once at the start, then read when asked for.

    Args:
        parse: makes a record of a line's JSON value and the file's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no record, or a bad one (`FILE:LINE: what is wrong`).
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[object, epath.Path], _T],
        max_examples: int | None = None,
        *,
        skip_bad: bool = False,
    ):
        lines = JsonLines(path)
        parser = partial(parse, folder=lines.folder)
        super().__init__([lines], [parser], max_examples, skip_bad=skip_bad)


class ItemLines(Items):
    """The items of a JSON Lines file, one object or string a line, and in the place of a bad line
    what is wrong (`FILE:LINE: …`). A line is parsed when it is asked for; slices are views.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str):
        lines = JsonLines(path)
        super().__init__([lines], [partial(parse_item, folder=lines.folder)], [lines.folder])
