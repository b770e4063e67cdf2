"""A JSON Lines file of items to a file of vectors, resumable."""

import hashlib
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lco_jax.data.records import Item, read_items
from lco_jax.evaluate.embedder import Embedder
from lco_jax.evaluate.encoder import progress_bar

log = logging.getLogger(__name__)

_PIECE = 16_384
"""Items between two points from which a stopped job goes on."""


def embed_file(embedder: Embedder, input_path: str, output_path: str) -> int:
    """Write one unit vector per input line, in order; returns their number.

    `output_path` ends in `.npy` (one float32 array) or `.parquet` (columns `id` and `vector`).
    It appears when it is complete. Until then the vectors so far stand beside it, and the same
    call goes on from there.

    Raises:
        FileNotFoundError: no such input.
        ValueError: a bad input line (`FILE:LINE: ...`), or another kind of output.
    """
    output = Path(output_path)
    if output.suffix not in (".npy", ".parquet"):
        raise ValueError(f"output {output_path} must end in .npy or .parquet")
    items = read_items(input_path)
    if not items:
        raise ValueError(f"{input_path}: holds no items")
    partial = _Partial(output, _fingerprint(embedder, items), len(items), embedder.width)
    with progress_bar(len(items), enabled=jax.process_index() == 0) as bar:
        bar.advance(bar.task_ids[0], partial.num_done)
        for start in range(partial.num_done, len(items), _PIECE):
            vectors = embedder.encode(items[start : start + _PIECE])
            partial.append(start, vectors)
            bar.advance(bar.task_ids[0], len(vectors))
    if jax.process_index() == 0:
        partial.finish([item.id for item in items])
    return len(items)


class _Partial:
    """The vectors so far: a memory-mapped array and a note of how many of them are real."""

    def __init__(self, output: Path, fingerprint: str, count: int, width: int):
        self._output = output
        self._array_path = output.with_name(output.name + ".partial.npy")
        self._note_path = output.with_name(output.name + ".partial.json")
        self._fingerprint = fingerprint
        note = json.loads(self._note_path.read_text()) if self._note_path.exists() else {}
        resumable = note.get("fingerprint") == fingerprint and self._array_path.exists()
        self.num_done = note["num_done"] if resumable else 0
        self._array = None
        if jax.process_index() != 0:
            return
        output.parent.mkdir(parents=True, exist_ok=True)
        if resumable:
            log.info("going on after %d of %d items", self.num_done, count)
            self._array = np.load(self._array_path, mmap_mode="r+")
        else:
            self._array = np.lib.format.open_memmap(
                self._array_path, "w+", np.float32, (count, width)
            )

    def append(self, start: int, vectors: np.ndarray) -> None:
        if self._array is None:
            return
        self._array[start : start + len(vectors)] = vectors
        self._array.flush()
        note = {"fingerprint": self._fingerprint, "num_done": start + len(vectors)}
        draft = self._note_path.with_suffix(".tmp")
        draft.write_text(json.dumps(note))
        draft.replace(self._note_path)

    def finish(self, ids: list[str | None]) -> None:
        if self._output.suffix == ".parquet":
            values = pa.array(self._array.reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(values, self._array.shape[1])
            names = [str(line) if name is None else name for line, name in enumerate(ids)]
            draft = self._output.with_name(self._output.name + ".tmp")
            pq.write_table(pa.table({"id": names, "vector": vectors}), draft)
            draft.replace(self._output)
            self._array_path.unlink()
        else:
            self._array_path.replace(self._output)
        self._note_path.unlink(missing_ok=True)


def _fingerprint(embedder: Embedder, items: list[Item]) -> str:
    """Of all that the vectors depend on: model, recipe and items."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(embedder.identity).encode())
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()
