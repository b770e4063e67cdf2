"""A JSON Lines file of items to a file of vectors, resumable, on any number of processes."""

import contextlib
import hashlib
import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from lco_jax.data.sources.jsonl import ItemLines
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.encoder import progress_bar
from lco_jax.embed.parts import Parts
from lco_jax.runtime import processes

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

    `output_path` ends in `.npy` (one float32 array) or `.parquet` (columns `id` and `vector`); it
    may be `gs://`. It appears when it is complete. Until then the vectors so far stand beside it,
    and the same call goes on from there. A line that cannot be embedded has a row of NaN (null in
    parquet), and is listed in `OUTPUT.errors.jsonl`.

    Several processes call it alike. Each parses and embeds its own lines, and the first, whose
    position all go on from, writes.

    Raises:
        FileNotFoundError: no such input.
        ValueError: another kind of output, or an input without items.
        LostProcessError: another process is gone.
    """
    output = epath.Path(output_path)
    if output.suffix not in (".npy", ".parquet"):
        raise ValueError(f"output {output_path} must end in .npy or .parquet")
    items = ItemLines(input_path)
    if not len(items):
        raise ValueError(f"{input_path}: holds no items")
    with processes.lost_processes_named():
        return _embed(embedder, items, output)


def _embed(embedder: Embedder, items: ItemLines, output: epath.Path) -> Embedded:
    parts = Parts(output, _fingerprint(embedder, items)) if jax.process_index() == 0 else None
    num_done, errors = _agree_on_position(parts)
    if num_done and parts is not None:
        log.info("going on after %d of %d items", num_done, len(items))
    pieces = (items[start : start + _PIECE] for start in range(num_done, len(items), _PIECE))
    with (
        progress_bar(len(items), enabled=parts is not None) as bar,
        ThreadPoolExecutor(1, "parts") as writer,
        contextlib.closing(embedder.encode_pieces(pieces)) as embedded,
    ):
        bar.advance(bar.task_ids[0], num_done)
        written: Future | None = None
        for vectors, found in embedded:
            texts = {index: str(error) for index, error in found.items()}
            vectors[list(texts)] = np.nan
            errors |= {num_done + index: text for index, text in texts.items()}
            num_done += len(vectors)
            if written is not None:
                written.result()
            if parts is not None:
                written = writer.submit(parts.append, vectors, texts)
            bar.advance(bar.task_ids[0], len(vectors))
        if written is not None:
            written.result()
    if parts is not None:
        parts.finish(_names(items) if output.suffix == ".parquet" else None)
    processes.gather("embedded", "")  # the output is there when any process says so
    return Embedded(len(items), errors)


def _agree_on_position(parts: Parts | None) -> tuple[int, dict[int, str]]:
    """How many items the first process has vectors of, and what is wrong with some of them."""
    own = json.dumps((parts.num_done, parts.errors)) if parts is not None else ""
    num_done, errors = json.loads(processes.gather("embedded before", own)[0])
    return num_done, {int(number): text for number, text in errors.items()}


def _names(items: ItemLines) -> list[str]:
    """The ids of items, or their numbers."""
    ids = [None if isinstance(item, ValueError) else item.id for item in items]
    return [str(number) if name is None else name for number, name in enumerate(ids)]


def _fingerprint(embedder: Embedder, items: ItemLines) -> str:
    """Of all that the vectors depend on: model, recipe and items."""
    digest = hashlib.blake2b(repr((embedder.identity, items.digest)).encode(), digest_size=16)
    return digest.hexdigest()
