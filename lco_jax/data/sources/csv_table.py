"""CSV and TSV files; errors name the line."""

import csv
import io
from collections import Counter
from collections.abc import Iterator

from lco_jax.data.sources.content import Content, digest_of, open_content
from lco_jax.data.sources.jsonl import BYTE_ORDER_MARK, decode
from lco_jax.data.sources.table import Row, Table

_DELIMITERS = (",", "\t", ";")
_LARGEST_CELL = 1 << 24
"""Bytes: what is longer is a quote that nobody closed."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class CsvTable(Table):
    """A file whose first line has the names of columns, plain or `.gz`. Cells are separated by
    what separates the most names: comma, tab or semicolon.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8, or has no usable names of columns.
    """

    def __init__(self, path: str):
        super().__init__(path)
        self._content: Content = open_content(path)
        if self._content[:2] in _UTF16:
            raise ValueError(f"{path} is UTF-16; save it as UTF-8")
        csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))
        self._delimiter = ","
        header = next(self._find(0), None)
        if header is None:
            raise ValueError(f"{path}: is empty; expected the names of columns in its first line")
        try:
            self._delimiter = max(_DELIMITERS, key=lambda sign: self._count_names(header, sign))
            header = next(self._find(0))  # a quoted name may hold one of the other signs
            self.columns = tuple(name.strip() for name in self._cells(header, self._delimiter))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{self.place_of(header)}: {error}") from error
        twice = [name for name, count in Counter(self.columns).items() if name and count > 1]
        if twice:
            raise ValueError(f"{path} has several columns {twice[0]!r}; give each its own name")
        self._first = header.stop

    def find_rows(self) -> Iterator[Row]:
        """Where the records are, which may go over several lines; blank lines are none."""
        return self._find(1)

    def read(self, row: Row) -> dict[str, str]:
        try:
            cells = self._cells(row, self._delimiter)
        except csv.Error as error:
            raise ValueError(f"not CSV ({error}); is a quote not closed or not doubled?") from error
        if len(cells) != len(self.columns):
            raise ValueError(
                f"{_say(len(cells), 'cell')}, and the first line names "
                f"{_say(len(self.columns), 'column')}; quote cells that hold {self._delimiter!r}"
            )
        return dict(zip(self.columns, cells, strict=True))

    def digest(self, last: Row | None) -> str:
        return digest_of(self._content, last.stop if last else self._first)

    def _find(self, skipped: int) -> Iterator[Row]:
        """Where the records are, without the first ones."""
        lines = _Lines(self._content)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            start, number = lines.stop, lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:  # `read` will say so
                cells = ["?"]
            if not cells or cells == [""]:
                continue
            if skipped:
                skipped -= 1
                continue
            yield Row(number, start, lines.stop)

    def _count_names(self, header: Row, delimiter: str) -> int:
        try:
            return len(self._cells(header, delimiter))
        except csv.Error:
            return 0

    def _cells(self, row: Row, delimiter: str) -> list[str]:
        text = io.StringIO(decode(self._content[row.start : row.stop]), newline="")
        return next(csv.reader(text, delimiter=delimiter, strict=True))


class _Lines(Iterator[str]):
    """The lines of a file, each byte as one character: enough to see where records end."""

    def __init__(self, content: Content):
        self._content = content
        self.stop = len(BYTE_ORDER_MARK) if content[:3] == BYTE_ORDER_MARK else 0
        """Where the next one starts."""
        self.number = 0
        """Of the last one."""

    def __next__(self) -> str:
        start = self.stop
        if start >= len(self._content):
            raise StopIteration
        newline = self._content.find(b"\n", start)
        self.stop = len(self._content) if newline < 0 else newline + 1
        self.number += 1
        return self._content[start : self.stop].decode("latin-1")


def _say(number: int, name: str) -> str:
    return f"{number} {name}" + "s" * (number != 1)
