"""Sources of examples, opened: files and prepared datasets as records at random access."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from etils import epath
from jaxtyping import Int64

from lco_jax.config import DataConfig, JsonlSource, Source, TableSource, TfdsSource
from lco_jax.data.errors import RecordError, belonging_to
from lco_jax.data.records import Exchange, Item, Record, Triplet, parse_exchange, parse_triplet
from lco_jax.data.sources.columns import feature_of, make_exchange, make_triplet
from lco_jax.data.sources.datasets import open_dataset
from lco_jax.data.sources.files import open_tables
from lco_jax.data.sources.jsonl import JsonlRecords
from lco_jax.data.sources.misread import VIEWS, Misreader
from lco_jax.data.sources.roles import is_media, make_parser
from lco_jax.data.sources.table import Records, Table

if TYPE_CHECKING:
    from lco_jax.data.sources.prepared import PreparedRecords

_DIGEST_RECORDS = 64
"""Of a prepared dataset, evenly spread; its name, version and size are hashed as well."""


@dataclass(frozen=True)
class OpenSource:
    """A source that is ready to be read at random access."""

    name: str
    records: Sequence[Record]
    digest: str
    """Hash of the content."""

    def __len__(self) -> int:
        return len(self.records)

    def sizes_of(self, indices: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N 2"]:
        """See `Records.sizes_of`; zeros of prepared datasets, of which nothing is known before they
        are read."""
        if isinstance(self.records, Records):
            return self.records.sizes_of(indices)
        return np.zeros((len(indices), 2), np.int64)

    def place_of(self, index: int) -> str:
        """Where a record is, as messages name it."""
        if isinstance(self.records, Records):
            return self.records.place_of(index)
        return f"{self.name}: record {index}"


def open_source(
    source: Source, kind: type[Record] = Triplet, *, skip_bad: bool = False
) -> OpenSource:
    """Open and check the files or prepared dataset that `source` names.

    Args:
        kind: what its records become: triplets, or exchanges for a generative stage.
        skip_bad: leave out bad rows of files, and say so.

    Raises:
        FileNotFoundError: the file is absent, or the dataset not prepared.
        ValueError: a row of a file is bad (both are named), a column is not there, or the dataset
            unknown or without the field that is to be generated.
    """
    match source:
        case JsonlSource():
            parse = parse_triplet if kind is Triplet else parse_exchange
            lines = JsonlRecords(source.path, parse, source.max_examples, skip_bad=skip_bad)
            return OpenSource(PurePath(source.path).name, lines, lines.digest)
        case TableSource():
            tables, parsers = _open_tables(source, kind)
            rows = Records(tables, parsers, source.max_examples, skip_bad=skip_bad)
            return OpenSource(" ".join(source.paths), rows, rows.digest)
        case TfdsSource():
            prepared = open_dataset(source.name, source.split, source.data_dir, source.columns)
            name, count = f"{source.name}:{source.split}", len(prepared)
            count = min(count, source.max_examples or count)
            if kind is Exchange:
                make, views = partial(_at, make=_exchange_maker(source, prepared)), 1
            elif source.misread is None:
                make = partial(_at, make=partial(make_triplet, columns=prepared.columns))
                views = 1
            else:
                name, views = f"{name}:{source.misread}", VIEWS
                make = Misreader(source.misread, prepared.columns, count, source.response)
            records = _PreparedExamples(name, prepared, make, count, views)
            return OpenSource(name, records, records.digest())


def check_columns(source: TableSource, kind: type[Record] = Triplet) -> bool:
    """Whether the columns of the files may hold media; rows are not looked at.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file is of no known kind, a column is not there, or there is no such role.
    """
    tables, _ = _open_tables(source, kind)
    names = [name for table in tables for name in table.columns or ()]
    roles = [role for _, role in source.columns] or names
    return any(table.holds_records for table in tables) or any(map(is_media, roles))


def _open_tables(
    source: TableSource, kind: type[Record]
) -> tuple[list[Table], list[Callable[[object], Record]]]:
    """The tables of a source, and what makes records of the rows of each."""
    tables = open_tables(source.paths)
    root = source.media_root and epath.Path(source.media_root)
    parsers = [make_parser(table, kind, source.columns, root or table.folder) for table in tables]
    return tables, parsers


def _exchange_maker(
    source: TfdsSource, prepared: "PreparedRecords"
) -> Callable[[Mapping], Exchange]:
    response = source.response or prepared.columns.positive
    example = prepared[0]
    try:
        feature_of(example, response)
    except KeyError as error:
        raise ValueError(
            f"{source.name} has no field {response!r} to generate; response must be one of "
            f"{sorted(example)}"
        ) from error
    return partial(make_exchange, columns=prepared.columns, asked=source.prompt, response=response)


def read_pairs(source: Source, num_pairs: int | None) -> list[Triplet]:
    """The first `num_pairs` triplets of a source (None: all), e.g. for an evaluation."""
    triplets = open_source(source).records
    return [triplets[index] for index in range(len(triplets))[:num_pairs]]


def all_items(config: DataConfig, kind: type[Record] = Triplet) -> Iterator[Item]:
    """Every item of every source once."""
    skip_bad = config.media.on_error == "skip"
    for source in config.sources:
        records = open_source(source, kind, skip_bad=skip_bad).records
        for index in range(len(records)):
            try:
                record = records[index]
            except RecordError:
                if not skip_bad:
                    raise
                continue
            if isinstance(record, Triplet):
                yield from (record.anchor, record.positive, *record.negatives)
            else:
                yield record.prompt


class _PreparedExamples(Sequence[Record]):
    """The examples that records of a prepared dataset make, read at random access.

    Args:
        make: makes one of the records and its index.
        count: how many records are read.
        views: how many examples each makes; example `index` is of record `index % count`.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[Mapping],
        make: Callable[[Sequence[Mapping], int], Record],
        count: int,
        views: int = 1,
    ):
        self._name, self._records, self._make = name, records, make
        self._count, self._views = count, views

    def __len__(self) -> int:
        return self._count * self._views

    def __getitem__(self, index: int) -> Record:
        if index >= len(self):  # before it can be an error of a record: iteration ends so
            raise IndexError(f"{self._name}: record {index} of {len(self)}")
        with belonging_to(f"{self._name}: record {index % self._count}"):
            return self._make(self._records, index)

    def digest(self) -> str:
        most = min(self._count, _DIGEST_RECORDS)
        chosen = np.linspace(0, self._count - 1, most).astype(int)
        records = [self._records[index] for index in chosen.tolist()]
        content = json.dumps(records, sort_keys=True, default=bytes.hex)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _at(records: Sequence[Mapping], index: int, *, make: Callable[[Mapping], Record]) -> Record:
    return make(records[index])
