"""Files of rows, read at random access: what their kinds have in common, and several as one."""

import abc
import copy
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from etils import epath
from jaxtyping import Int64

from lco_jax.data.errors import RecordError, belonging_to
from lco_jax.data.records import Item, media_of

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_LOG_EVERY_ROWS = 100_000
_MOST_TOLD = 20
"""Rows of a file that are left out by name; of others there is a count."""

Parse = Callable[[object], _T]


class Row(NamedTuple):
    """Where a row is."""

    number: int
    """From 1: of its line, or of the row in a file without lines."""
    start: int
    stop: int


class Table(abc.ABC):
    """A file of rows. Any number of threads may read at the same time."""

    columns: tuple[str, ...] | None
    """Their names (None: no row says any)."""
    holds_records: ClassVar[bool] = False
    """Whether rows may be records as they are, and not just columns."""
    has_offsets: ClassVar[bool] = True
    """Whether rows start and stop at bytes of the file."""

    def __init__(self, path: str):
        self.path = path
        self.folder = epath.Path(path).parent

    def use(self, columns: Collection[str]) -> None:  # noqa: B027 - most read whole rows anyway
        """Read these columns only."""

    @abc.abstractmethod
    def find_rows(self) -> Iterator[Row]:
        """Where the rows are, bad ones among them."""

    @abc.abstractmethod
    def read(self, row: Row) -> object:
        """The row as a JSON value.

        Raises:
            ValueError: it cannot be read; the message says why, and not where.
        """

    @abc.abstractmethod
    def digest(self, last: Row | None) -> str:
        """Hash of the content of the file up to a row (None: no row is read)."""

    def place_of(self, row: Row) -> str:
        """A row as messages name it."""
        return f"{self.path}:{row.number}"


class _Rows:
    """The rows of several tables, one after another."""

    def __init__(self, tables: Sequence[Table]):
        self.tables = tables
        self._found = np.zeros((0, 4), np.int64)  # table, and the row in it

    def __len__(self) -> int:
        return len(self._found)

    def set(self, found: list[tuple[int, ...]]) -> None:
        self._found = np.array(found, np.int64).reshape(-1, 4)

    def num_bytes(self, indices: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
        """Of rows; 0 where files do not say."""
        table, _, start, stop = self._found[indices].T
        return np.where(np.array([own.has_offsets for own in self.tables])[table], stop - start, 0)

    def part(self, index: slice) -> "_Rows":
        part = copy.copy(self)
        part._found = self._found[index]
        return part

    def __getitem__(self, index: int) -> tuple[int, Row]:
        table, number, start, stop = self._found[index].tolist()
        return table, Row(number, start, stop)

    def read(self, parsers: Sequence[Parse[_T]], index: int) -> _T:
        table, row = self[index]
        return read_row(self.tables[table], row, parsers[table])

    def place_of(self, index: int) -> str:
        table, row = self[index]
        return self.tables[table].place_of(row)

    def digests(self) -> list[str]:
        """Of each table."""
        stops = np.searchsorted(self._found[:, 0], range(len(self.tables)), side="right")
        last = [self[stop - 1] if stop else (-1, None) for stop in stops.tolist()]
        return [
            table.digest(row if found == number else None)
            for number, (table, (found, row)) in enumerate(zip(self.tables, last, strict=True))
        ]


def read_row(table: Table, row: Row, parse: Parse[_T]) -> _T:
    """What `parse` makes of a row; errors say where it is.

    Raises:
        RecordError: the row cannot be read, or not parsed.
    """
    try:
        return parse(table.read(row))
    except BaseException as error:  # `belonging_to` takes time for every row that is good
        with belonging_to(lambda: table.place_of(row)):
            if isinstance(error, RecursionError):
                raise ValueError("values are nested too deeply") from None
            raise


class Records(Sequence[_T]):
    """The records of tables, one after another: all checked once at the start, then read when asked
    for.

    Args:
        parsers: of each table, makes a record of the JSON value of a row.
        skip_bad: leave out bad rows, and say so.

    Raises:
        ValueError: there is no record, or a bad one (`FILE:LINE: what is wrong`).
    """

    digest: str
    """Hash of the content of the files, as far as it is read."""

    def __init__(
        self,
        tables: Sequence[Table],
        parsers: Sequence[Parse[_T]],
        max_examples: int | None = None,
        *,
        skip_bad: bool = False,
    ):
        self._rows, self._parsers = _Rows(tables), parsers
        good = itertools.chain.from_iterable(
            self._check(number, skip_bad) for number in range(len(tables))
        )
        found = list(itertools.islice(good, max_examples))
        self._rows.set([row for row, _ in found])
        self._media = np.array([media for _, media in found], np.int64)
        if not len(self._rows):
            names = ", ".join(table.path for table in tables)
            raise ValueError(f"{names}: holds no record; expected one a row")
        digests = self._rows.digests()
        self.digest = digests[0] if len(digests) == 1 else _joined(digests)

    def _check(self, number: int, skip_bad: bool) -> Iterator[tuple[tuple[int, ...], int]]:
        """The good rows of a table, with its number, and the media that their records have."""
        table, left_out = self._rows.tables[number], 0
        for count, row in enumerate(table.find_rows(), 1):
            if count % _LOG_EVERY_ROWS == 0:
                _logger.info("%s: %d rows checked", table.path, count)
            try:
                record = read_row(table, row, self._parsers[number])
            except RecordError as error:
                if not skip_bad:
                    raise
                left_out += 1
                if left_out <= _MOST_TOLD:
                    _logger.warning("left out: %s", error)
                continue
            yield (number, *row), media_of(record)
        if left_out:
            _logger.warning("%s: %d bad rows are left out", table.path, left_out)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> _T:
        return self._rows.read(self._parsers, index)

    def sizes_of(self, indices: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N 2"]:
        """What is known of records without reading them: which media they have (`media_of`), and
        the bytes of their rows."""
        return np.stack([self._media[indices], self._rows.num_bytes(indices)], 1)

    def place_of(self, index: int) -> str:
        """Where a record is, such as `FILE:LINE`."""
        return self._rows.place_of(index)


class Items(Sequence[Item | ValueError]):
    """The items of tables, one after another, and in the place of a bad row what is wrong
    (`FILE:LINE: …`). A row is parsed when it is asked for; slices are views.

    Args:
        parsers: of each table, makes an item of the JSON value of a row.
        media: of each table, the folder of its relative paths.
        identity: what the items depend on besides content and folders.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        parsers: Sequence[Parse[Item]],
        media: Sequence[epath.Path],
        identity: str = "",
    ):
        self._rows, self._parsers = _Rows(tables), parsers
        self._media, self._identity = media, identity
        self._rows.set(
            [(number, *row) for number, table in enumerate(tables) for row in table.find_rows()]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice) -> "Item | ValueError | Items":
        if isinstance(index, slice):
            part = copy.copy(self)
            part._rows = self._rows.part(index)
            return part
        try:
            return self._rows.read(self._parsers, index)
        except RecordError as error:
            return error

    def place_of(self, index: int) -> str:
        """Where an item is, such as `FILE:LINE`."""
        return self._rows.place_of(index)

    @property
    def digest(self) -> str:
        """Hash of all that the items depend on: contents, and the folders of media."""
        digests = zip(map(os.fspath, self._media), self._rows.digests(), strict=True)
        known = [f"{folder} {digest}" for folder, digest in digests] + [self._identity]
        return known[0] if len(known) == 2 and not self._identity else _joined(known)


def _joined(parts: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
