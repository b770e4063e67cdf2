"""A JSON Lines file of items to a file of vectors, resumable."""

import hashlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from lco_jax.data.records import Item
from lco_jax.data.sources.jsonl import try_read_items
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.encoder import Errors, progress_bar

log = logging.getLogger(__name__)

_PIECE = 16_384
"""Items between two points from which a stopped job goes on."""


class Embedded(NamedTuple):
    """What became of the lines of a file."""

    count: int
    errors: dict[int, str]
    """What is wrong with a line that has no vector, by its place among the items."""


def embed_file(embedder: Embedder, input_path: str, output_path: str) -> Embedded:
    """Write one unit vector per input line, in order.

    `output_path` ends in `.npy` (one float32 array) or `.parquet` (columns `id` and `vector`).
    It appears when it is complete. Until then the vectors so far stand beside it, and the same
    call goes on from there. A line that cannot be embedded has a row of NaN (null in parquet), and
    is listed in `OUTPUT.errors.jsonl`.

    Raises:
        FileNotFoundError: no such input.
        ValueError: another kind of output, or an input without items.
    """
    output = Path(output_path)
    if output.suffix not in (".npy", ".parquet"):
        raise ValueError(f"output {output_path} must end in .npy or .parquet")
    items = try_read_items(input_path)
    if not items:
        raise ValueError(f"{input_path}: holds no items")
    partial = _Partial(output, _fingerprint(embedder, items), len(items), embedder.width)
    with progress_bar(len(items), enabled=jax.process_index() == 0) as bar:
        bar.advance(bar.task_ids[0], partial.num_done)
        for start in range(partial.num_done, len(items), _PIECE):
            vectors, errors = _embed(embedder, items[start : start + _PIECE])
            partial.append(start, vectors, errors)
            bar.advance(bar.task_ids[0], len(vectors))
    if jax.process_index() == 0:
        partial.finish([None if isinstance(item, ValueError) else item.id for item in items])
    return Embedded(len(items), partial.errors)


def _embed(
    embedder: Embedder, items: list[Item | ValueError]
) -> tuple[Float[np.ndarray, "N E"], dict[int, str]]:
    """The vectors of a piece, NaN where there is an error."""
    good = [index for index, item in enumerate(items) if isinstance(item, Item)]
    found: Errors = {}
    vectors = np.full((len(items), embedder.width), np.nan, np.float32)
    vectors[good] = embedder.encode([items[index] for index in good], errors=found)
    errors = {index: str(item) for index, item in enumerate(items) if isinstance(item, ValueError)}
    errors |= {good[index]: str(error) for index, error in found.items()}
    vectors[list(errors)] = np.nan
    return vectors, errors


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
        self.errors = {int(k): text for k, text in note["errors"].items()} if resumable else {}
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

    def append(self, start: int, vectors: np.ndarray, errors: dict[int, str]) -> None:
        self.errors |= {start + index: text for index, text in errors.items()}
        if self._array is None:
            return
        self._array[start : start + len(vectors)] = vectors
        self._array.flush()
        note = {
            "fingerprint": self._fingerprint,
            "num_done": start + len(vectors),
            "errors": self.errors,
        }
        draft = self._note_path.with_suffix(".tmp")
        draft.write_text(json.dumps(note))
        draft.replace(self._note_path)

    def finish(self, ids: list[str | None]) -> None:
        if self._output.suffix == ".parquet":
            values = pa.array(self._array.reshape(-1))
            missing = np.isin(np.arange(len(self._array)), list(self.errors))
            vectors = pa.FixedSizeListArray.from_arrays(
                values, self._array.shape[1], mask=pa.array(missing)
            )
            names = [str(line) if name is None else name for line, name in enumerate(ids)]
            draft = self._output.with_name(self._output.name + ".tmp")
            pq.write_table(pa.table({"id": names, "vector": vectors}), draft)
            draft.replace(self._output)
            self._array_path.unlink()
        else:
            self._array_path.replace(self._output)
        self._note_path.unlink(missing_ok=True)
        self._write_errors()

    def _write_errors(self) -> None:
        file = self._output.with_name(self._output.name + ".errors.jsonl")
        if not self.errors:
            file.unlink(missing_ok=True)
            return
        lines = [
            json.dumps({"item": index, "error": text}, ensure_ascii=False)
            for index, text in sorted(self.errors.items())
        ]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _fingerprint(embedder: Embedder, items: list[Item | ValueError]) -> str:
    """Of all that the vectors depend on: model, recipe and items."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(embedder.identity).encode())
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()
