"""Parquet files; errors name the row."""

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from lco_jax.data.sources.content import Content, FileBytes, digest_of, keep, open_content
from lco_jax.data.sources.table import Row, Table

_BATCH_ROWS = 4096


class ParquetTable(Table):
    """A parquet file. Its columns are unpacked once, into a nameless file that is mapped: rows of
    a parquet file cannot be read one by one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no parquet file.
    """

    has_offsets = False

    def __init__(self, path: str):
        super().__init__(path)
        self._content: Content = open_content(path)
        try:
            self._file = pq.ParquetFile(_source(self._content))
            self.columns = tuple(self._file.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        self._used: tuple[str, ...] = self.columns

    def use(self, columns: Collection[str]) -> None:
        self._used = tuple(name for name in self.columns if name in columns)

    def find_rows(self) -> Iterator[Row]:
        number = 0
        for index, batch in enumerate(self._batches):
            for place in range(batch.num_rows):
                number += 1
                yield Row(number, index, place)

    def read(self, row: Row) -> dict[str, object]:
        batch = self._batches[row.start]
        values = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                values[name] = column[row.stop].as_py()
            except UnicodeDecodeError as error:
                raise ValueError(f"column {name!r} is not UTF-8 ({error.reason})") from error
        return values

    def digest(self, last: Row | None) -> str:
        return digest_of(self._content, len(self._content))

    def place_of(self, row: Row) -> str:
        return f"{self.path}: row {row.number}"

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        try:
            reader = pa.ipc.open_file(pa.py_buffer(keep(self._unpack)))
            return [reader.get_batch(index) for index in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _unpack(self, file: IO[bytes]) -> None:
        fields = [_plain(self._file.schema_arrow.field(name)) for name in self._used]
        with pa.ipc.new_file(file, schema := pa.schema(fields)) as writer:
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=list(self._used)):
                columns = [_decoded(batch.column(name)) for name in self._used]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(f"{self.path} cannot be read as parquet: {error}")


def _source(content: Content) -> str | pa.BufferReader:
    """What pyarrow reads; a path is read, not mapped."""
    if isinstance(content, FileBytes):
        return content.path
    return pa.BufferReader(pa.py_buffer(content))


def _plain(field: pa.Field) -> pa.Field:
    kind = field.type
    return pa.field(field.name, kind.value_type if pa.types.is_dictionary(kind) else kind)


def _decoded(column: pa.Array) -> pa.Array:
    """Values in the place of numbers of categories, whose lists differ between batches."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
