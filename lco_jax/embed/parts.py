"""Vectors of a file in the making: written part by part beside it, and joined at the end."""

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from jaxtyping import Float

from lco_jax.data.records import Item, MediaSource, encodable
from lco_jax.runtime.disks import writing

log = logging.getLogger(__name__)

VECTOR_COLUMN = "vector"
"""Of a table of vectors."""
ABOUT_KEY = b"lco_jax"
"""Of the table's metadata: JSON that says which model made it."""


def _naming_output(write: Callable[..., None]) -> Callable[..., None]:
    """A method of `Parts` whose errors of a full or failing disk name the output."""

    @functools.wraps(write)
    def wrapped(self: "Parts", *arguments: Any) -> None:
        num_bytes = sum(x.nbytes for x in arguments if isinstance(x, np.ndarray))
        with writing(self._output, num_bytes or None):
            write(self, *arguments)

    return wrapped


class Parts:
    """The parts so far of an output, and a note of how many items they hold.

    Every file is written as a whole, so the folder may lie in a bucket, whose objects nothing can
    be appended to.

    Args:
        output: the file that is to be, local or `gs://`.
        fingerprint: of what the vectors depend on; parts of something else are dropped.
    """

    def __init__(self, output: epath.Path, fingerprint: str):
        self._output, self._fingerprint = output, fingerprint
        self._folder = output.with_name(output.name + ".partial")
        self._note = self._folder / "note.json"
        note = json.loads(self._note.read_text()) if self._note.exists() else {}
        resumable = note.get("fingerprint") == fingerprint
        self.num_done: int = note["num_done"] if resumable else 0
        self.errors: dict[int, str] = {}
        """What is wrong with an item of the parts, by its number."""
        if resumable:
            self.errors = {int(number): text for number, text in note["errors"].items()}
        elif self._folder.exists():
            self._folder.rmtree()
        with writing(output):
            self._folder.mkdir(parents=True, exist_ok=True)

    @_naming_output
    def append(self, vectors: Float[np.ndarray, "N E"], errors: dict[int, str]) -> None:
        """Keep the vectors of the next items, and errors by their place among these."""
        with self._file(self.num_done).open("wb") as file:
            np.save(file, vectors)
        self.errors |= {self.num_done + index: text for index, text in errors.items()}
        self.num_done += len(vectors)
        draft = self._folder / "note.tmp"
        draft.write_text(
            json.dumps(
                {
                    "fingerprint": self._fingerprint,
                    "num_done": self.num_done,
                    "errors": self.errors,
                }
            )
        )
        draft.replace(self._note)

    @_naming_output
    def finish(
        self,
        items: Sequence[Item | ValueError] | None = None,
        made_by: dict[str, str] | None = None,
    ) -> None:
        """Write the output and the list of its errors, and drop the parts.

        Args:
            items: all of them, which a table shows beside their vectors.
            made_by: what a table notes of the model, as `lco_jax` in its metadata.
        """
        draft = self._output.with_name(self._output.name + ".tmp")
        with draft.open("wb") as file:
            if items is None:
                self._write_array(file)
            else:
                self._write_table(file, items, json.dumps(made_by or {}))
        draft.replace(self._output)
        self._write_errors()
        self._folder.rmtree()

    def _file(self, start: int) -> epath.Path:
        return self._folder / f"{start:012d}.npy"

    def _read(self) -> Iterator[tuple[int, Float[np.ndarray, "N E"]]]:
        """The parts, and the number of the first item of each."""
        start = 0
        while start < self.num_done:
            with self._file(start).open("rb") as file:
                vectors = np.load(file)
            yield start, vectors
            start += len(vectors)

    def _write_array(self, file) -> None:
        for start, vectors in self._read():
            if not start:
                shape = (self.num_done, vectors.shape[1])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(vectors, "<f4").tobytes())

    def _write_table(self, file, items: Sequence[Item | ValueError], made_by: str) -> None:
        writer = None
        for start, vectors in self._read():
            numbers = range(start, start + len(vectors))
            missing = np.isin(numbers, list(self.errors))
            column = pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)), vectors.shape[1], mask=pa.array(missing)
            )
            table = pa.table(
                _columns_of(items[start : numbers.stop], start) | {VECTOR_COLUMN: column}
            )
            table = table.replace_schema_metadata({ABOUT_KEY: made_by})
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        writer.close()

    def _write_errors(self) -> None:
        file = self._output.with_name(self._output.name + ".errors.jsonl")
        if not self.errors:
            file.unlink(missing_ok=True)
            return
        lines = [
            json.dumps({"item": index, "error": encodable(text)}, ensure_ascii=False)
            for index, text in sorted(self.errors.items())
        ]
        file.write_text("\n".join(lines) + "\n")


def _columns_of(items: Sequence[Item | ValueError], start: int) -> dict[str, pa.Array]:
    """Ids of items (their numbers, if they have none), texts, and where their media are."""
    found = [Item() if isinstance(item, ValueError) else item for item in items]
    ids = [str(number) if item.id is None else item.id for number, item in enumerate(found, start)]
    paths = pa.list_(pa.string())
    return {
        "id": pa.array(map(encodable, ids), pa.string()),
        "text": pa.array([item.text or None for item in found], pa.string()),
        "image_path": pa.array([_absolute(item.images) for item in found], paths),
        "audio_path": pa.array([_absolute(item.audios) for item in found], paths),
        "video_path": pa.array([_absolute(item.videos) for item in found], paths),
    }


def _absolute(paths: Sequence[MediaSource]) -> list[str] | None:
    """Paths that can be read from any folder (None: there are none)."""
    found = [path for path in paths if isinstance(path, str)]
    full = [path if ":" in path[:8] else os.path.abspath(path) for path in found]
    return list(map(encodable, full)) or None
