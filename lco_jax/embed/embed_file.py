"""Files of items to a file of vectors, resumable, on any number of processes."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from lco_jax.data.errors import at
from lco_jax.data.sources.items import FileItems, open_items
from lco_jax.data.sources.roles import ColumnRoles
from lco_jax.data.sources.table import Items
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.encoder import progress_bar
from lco_jax.embed.parts import Parts
from lco_jax.runtime import processes
from lco_jax.runtime.locks import only_writer_of

log = logging.getLogger(__name__)

_PIECE = 16_384
"""Items between two points from which a stopped job goes on."""


class Embedded(NamedTuple):
    """What became of the items."""

    count: int
    errors: dict[int, str]
    """What is wrong with an item that has no vector, by its place among them."""


def check_output(path: str) -> None:
    """Look at what can be seen without a model.

    Raises:
        ValueError: another kind of output.
    """
    if epath.Path(path).suffix not in (".npy", ".parquet"):
        raise ValueError(f"output {path} must end in .npy or .parquet")


def embed_file(
    embedder: Embedder,
    input_path: str | Sequence[str],
    output_path: str,
    *,
    columns: ColumnRoles = (),
    media_root: str | None = None,
) -> Embedded:
    """`embed_items` of what is in files; `input_path`, `columns` and `media_root` are those of
    `open_items`.

    Raises:
        FileNotFoundError: no such input.
        ValueError: another kind of output, an input without items, or columns that do not fit.
        LostProcessError: another process is gone.
    """
    check_output(output_path)
    return embed_items(embedder, open_items(input_path, columns, media_root), output_path)


def embed_items(embedder: Embedder, items: Items | FileItems, output_path: str) -> Embedded:
    """Write one unit vector per input item, in order.

    `output_path` ends in `.npy`
    (one float32 array) or `.parquet` (columns `id`, `text`, `image_path`, `audio_path`,
    `video_path` and `vector`); it may be `gs://`. It appears when it is complete. Until then the
    vectors so far stand beside it, and the same call goes on from there: with those that are whole
    and of the same model, settings, code and items. An item that cannot be
    embedded has a row of NaN (null in parquet), and is listed in `OUTPUT.errors.jsonl`.

    Every process of a job calls it with the same arguments. Each parses and embeds its own items;
    process 0 writes the output, and all resume from the position that it has found there.

    Raises:
        ValueError: another kind of output.
        LostProcessError: another process is gone.
        LockedError: a process of another start writes this output.
    """
    check_output(output_path)
    with processes.lost_processes_named(), only_writer_of(output_path):
        return _embed(embedder, items, epath.Path(output_path))


def _embed(embedder: Embedder, items: Items | FileItems, output: epath.Path) -> Embedded:
    depends = _depends_on(embedder, items)
    processes.agree_same({name: depends[name] for name in _SAME})
    parts = Parts(output, depends) if jax.process_index() == 0 else None
    done, errors = _agree_on_position(parts)
    num_done = sum(stop - start for start, stop in done)
    if num_done and parts is not None:
        log.info("going on after %d of %d items", num_done, len(items))
    ranges = list(_missing(done, len(items)))
    pieces = (items[start:stop] for start, stop in ranges)
    with (
        progress_bar(len(items), enabled=parts is not None) as bar,
        ThreadPoolExecutor(1, "parts") as writer,
        contextlib.closing(embedder.encode_pieces(pieces)) as embedded,
    ):
        bar.advance(bar.task_ids[0], num_done)
        written: Future | None = None
        for (start, _), (vectors, found) in zip(ranges, embedded, strict=True):
            texts = {
                start + index: str(_placed(error, items, start + index))
                for index, error in found.items()
            }
            vectors[list(found)] = np.nan
            errors |= texts
            if written is not None:
                written.result()
            if parts is not None:
                written = writer.submit(parts.add, start, vectors, texts)
            bar.advance(bar.task_ids[0], len(vectors))
        if written is not None:
            written.result()
    if parts is not None:
        is_table = output.suffix == ".parquet"
        model = {"model": embedder.source, "revision": embedder.revision} if is_table else None
        parts.finish(items if is_table else None, model)
    processes.gather("embedded", "")  # the output is there when any process says so
    return Embedded(len(items), errors)


def _placed(error: ValueError, items: Items | FileItems, index: int) -> ValueError:
    """The error with the row of its item, if items are rows; files are named by their errors."""
    return at(items.place_of(index), error) if isinstance(items, Items) else error


def _missing(done: Sequence[tuple[int, int]], count: int) -> Iterator[tuple[int, int]]:
    """The pieces of what lies between the ranges that are done."""
    reached = 0
    for start, stop in (*done, (count, count)):
        for first in range(reached, start, _PIECE):
            yield first, min(first + _PIECE, start)
        reached = stop


def _agree_on_position(parts: Parts | None) -> tuple[list[tuple[int, int]], dict[int, str]]:
    """Which items the first process has vectors of, and what is wrong with some of them."""
    own = json.dumps((parts.done, parts.errors)) if parts is not None else ""
    done, errors = json.loads(processes.gather("embedded before", own)[0])
    return [(start, stop) for start, stop in done], {int(n): text for n, text in errors.items()}


_SAME = ("weights or files of the model", "settings", "code or libraries")
"""What all processes must have in common; each may have copies of media of its own."""


def _depends_on(embedder: Embedder, items: Items | FileItems) -> dict[str, str]:
    """All that the vectors depend on, as messages call it."""
    contents, dtype, truncate_dim, recipe, code, *more = embedder.identity
    settings = repr((dtype, truncate_dim, recipe, *more))
    return dict(zip(_SAME, (contents, settings, code), strict=True)) | {"items": items.digest}
