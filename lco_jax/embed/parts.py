"""Vectors of a file in the making: written part by part beside it, and joined at the end."""

import functools
import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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


class DamagedPartError(RuntimeError):
    """A part was changed or cut while the job ran."""


class _Part(NamedTuple):
    """What the note says of a file of vectors."""

    count: int
    num_bytes: int
    digest: str
    errors: dict[str, str]
    """What is wrong with items that have none, by number."""


class Parts:
    """The parts so far of an output, and a note of what they hold.

    Every file is written as a whole, so the folder may lie in a bucket, whose objects nothing can
    be appended to. Parts that are not as they were written are named and left out.

    Args:
        output: the file that is to be, local or `gs://`.
        depends: what the vectors depend on, by name; parts of something else are dropped.
    """

    def __init__(self, output: epath.Path, depends: dict[str, str]):
        self._output, self._depends = output, depends
        self._folder = output.with_name(output.name + ".partial")
        self._note = self._folder / "note.json"
        self._parts: dict[int, _Part] = {}
        """By the number of their first item."""
        if self._folder.exists():
            self._parts = self._find()
        if not self._parts and self._folder.exists():
            self._folder.rmtree()
        with writing(output):
            self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def done(self) -> list[tuple[int, int]]:
        """The items that there are vectors of: first numbers, and those behind the last."""
        return [(start, start + part.count) for start, part in sorted(self._parts.items())]

    @property
    def errors(self) -> dict[int, str]:
        """What is wrong with an item of the parts, by its number."""
        found = [item for part in self._parts.values() for item in part.errors.items()]
        return {int(number): text for number, text in found}

    @_naming_output
    def add(self, start: int, vectors: Float[np.ndarray, "N E"], errors: dict[int, str]) -> None:
        """Keep the vectors of the items from `start` on, and errors by the numbers of items."""
        buffer = io.BytesIO()
        np.save(buffer, vectors)
        content = buffer.getvalue()
        self._file(start).write_bytes(content)
        named = {str(number): text for number, text in errors.items()}
        self._parts[start] = _Part(len(vectors), len(content), _digest(content), named)
        self._write_note()

    def _write_note(self) -> None:
        parts = {str(start): list(part) for start, part in sorted(self._parts.items())}
        body = json.dumps({"depends": self._depends, "parts": parts})
        draft = self._folder / "note.tmp"
        draft.write_text(f"{body}\n{_digest(body.encode())}\n")
        draft.replace(self._note)

    def _find(self) -> dict[int, _Part]:
        """The parts of an earlier start that are of the same and as they were written."""
        if not self._note.exists():
            return {}
        body, _, digest = self._note.read_bytes().strip().rpartition(b"\n")
        if _digest(body) != digest.decode(errors="replace"):
            log.warning("%s is damaged: all vectors are computed again", self._note)
            return {}
        note = json.loads(body)
        before, now = note["depends"], self._depends
        changed = [name for name in before | now if before.get(name) != now.get(name)]
        if changed:
            log.warning(
                "the vectors so far in %s are of other %s: all are computed again",
                *(self._folder, " and ".join(changed)),
            )
            return {}
        parts = {int(start): _Part(*fields) for start, fields in note["parts"].items()}
        return {start: part for start, part in parts.items() if self._is_whole(start, part)}

    def _is_whole(self, start: int, part: _Part) -> bool:
        file = self._file(start)
        found = file.read_bytes() if file.exists() else b""
        if len(found) == part.num_bytes and _digest(found) == part.digest:
            return True
        what = "its content is not what was written"
        if len(found) != part.num_bytes:
            what = f"it has {len(found)} of {part.num_bytes} bytes"
        log.warning(
            "%s is damaged (%s): the vectors of items %d to %d are computed again",
            *(file, what, start, start + part.count - 1),
        )
        return False

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
        for start, part in sorted(self._parts.items()):
            content = self._file(start).read_bytes()
            if _digest(content) != part.digest:
                raise DamagedPartError(
                    f"{self._file(start)} was changed or cut while the job ran; start it again, "
                    "which computes these vectors again"
                )
            yield start, np.load(io.BytesIO(content), allow_pickle=False)

    def _write_array(self, file) -> None:
        for start, vectors in self._read():
            if not start:
                shape = (self.done[-1][1], vectors.shape[1])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(vectors, "<f4").tobytes())

    def _write_table(self, file, items: Sequence[Item | ValueError], made_by: str) -> None:
        writer, bad = None, list(self.errors)
        for start, vectors in self._read():
            numbers = range(start, start + len(vectors))
            missing = np.isin(numbers, bad)
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
        errors = self.errors
        if not errors:
            file.unlink(missing_ok=True)
            return
        lines = [
            json.dumps({"item": index, "error": encodable(text)}, ensure_ascii=False)
            for index, text in sorted(errors.items())
        ]
        file.write_text("\n".join(lines) + "\n")


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


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
