"""Vectors of a file in the making: written part by part beside it, and joined at the end."""

import json
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from jaxtyping import Float

log = logging.getLogger(__name__)


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
        self._folder.mkdir(parents=True, exist_ok=True)

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

    def finish(self, names: Sequence[str] | None = None) -> None:
        """Write the output and the list of its errors, and drop the parts.

        Args:
            names: of all items, of which a table has a column.
        """
        draft = self._output.with_name(self._output.name + ".tmp")
        with draft.open("wb") as file:
            if names is None:
                self._write_array(file)
            else:
                self._write_table(file, names)
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

    def _write_table(self, file, names: Sequence[str]) -> None:
        writer = None
        for start, vectors in self._read():
            numbers = range(start, start + len(vectors))
            missing = np.isin(numbers, list(self.errors))
            column = pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)), vectors.shape[1], mask=pa.array(missing)
            )
            table = pa.table({"id": [names[number] for number in numbers], "vector": column})
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        writer.close()

    def _write_errors(self) -> None:
        file = self._output.with_name(self._output.name + ".errors.jsonl")
        if not self.errors:
            file.unlink(missing_ok=True)
            return
        lines = [
            json.dumps({"item": index, "error": text}, ensure_ascii=False)
            for index, text in sorted(self.errors.items())
        ]
        file.write_text("\n".join(lines) + "\n")
