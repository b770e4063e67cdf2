"""What is searched: files of items, or a file of their vectors."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath
from jaxtyping import Float

from lco_jax.data.records import Item, is_address
from lco_jax.data.sources.items import open_items
from lco_jax.embed.parts import ABOUT_KEY, VECTOR_COLUMN

Kind = Literal["text", "image", "audio", "video", "mixed", "vector"]
KINDS: tuple[Kind, ...] = ("text", "image", "audio", "video", "mixed", "vector")
"""Of items; `mixed` ones have several, and of a `vector` nothing else is known."""

_ID_COLUMN, _TEXT_COLUMN = "id", "text"
_MEDIA_COLUMNS = {"image_path": "images", "audio_path": "audios", "video_path": "videos"}


@dataclass(frozen=True)
class Corpus:
    """Items in order, or vectors of theirs."""

    name: str
    """As it was given."""
    items: Sequence[Item | ValueError]
    """An error in the place of one that cannot be read."""
    vectors: Float[np.ndarray, "N E"] | None = None
    """Of the items, if the file holds them; rows of NaN have none."""
    made_by: dict[str, str] = field(default_factory=dict)
    """What a file of vectors says of the model: its name and `Embedder.revision`."""

    def __len__(self) -> int:
        return len(self.items)


def kind_of(item: Item) -> Kind:
    """What an item consists of."""
    kinds: list[Kind] = [kind for kind, sources in item.media.items() if sources]
    if item.text.strip():
        kinds.append("text")
    if not kinds:
        return "vector"
    return kinds[0] if len(kinds) == 1 else "mixed"


def open_corpus(path: str) -> Corpus:
    """What `embed.py` takes (a folder of media and texts, JSON Lines, CSV or parquet, a pattern),
    or the vectors that it writes (`.parquet`, `.npy`).

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: nothing in it can be searched.
    """
    location = epath.Path(path)
    suffix = location.suffix.lower()
    if location.is_file() and suffix == ".npy":
        return _open_array(path)
    if location.is_file() and suffix == ".parquet" and (table := _read_vectors(path)) is not None:
        return _open_table(path, table)
    items = list(open_items(path))
    if all(isinstance(item, ValueError) for item in items):
        raise ValueError(f"{path}: none of its {len(items)} items can be read; {items[0]}")
    return Corpus(path, items)


# ---------------------------------------------------------------------------------- vectors


def _read_vectors(path: str) -> pa.Table | None:
    """The table in a file, if it has vectors."""
    try:
        with epath.Path(path).open("rb") as file:
            parquet = pq.ParquetFile(file)
            return parquet.read() if VECTOR_COLUMN in parquet.schema_arrow.names else None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error})") from error


def _open_table(path: str, table: pa.Table) -> Corpus:
    vectors = _matrix(path, table[VECTOR_COLUMN])
    columns = {
        name: table[name].to_pylist()
        for name in (_ID_COLUMN, _TEXT_COLUMN, *_MEDIA_COLUMNS)
        if name in table.column_names
    }
    folder = epath.Path(path).parent
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    items = [_row_item(row, folder) for row in rows] or [Item() for _ in vectors]
    stored = (table.schema.metadata or {}).get(ABOUT_KEY, b"{}")
    return _corpus_of_vectors(path, items, vectors, json.loads(stored))


def _matrix(path: str, column: pa.ChunkedArray) -> Float[np.ndarray, "N E"]:
    """Rows without a vector are NaN."""
    known = column.drop_null()
    widths = set(pc.list_value_length(known).unique().to_pylist())
    if len(widths) > 1:
        raise ValueError(f"{path}: vectors of widths {sorted(widths)}; expected one width")
    if not widths:
        raise ValueError(f"{path}: holds no vectors")
    vectors = np.full((len(column), widths.pop()), np.nan, np.float32)
    values = known.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors[column.is_valid().to_numpy()] = values.reshape(-1, vectors.shape[1])
    return vectors


def _row_item(row: dict, folder: epath.Path) -> Item:
    media = {}
    for column, kind in _MEDIA_COLUMNS.items():
        given = row.get(column) or ()
        paths = [given] if isinstance(given, str) else given
        media[kind] = tuple(
            path if is_address(path) else os.fspath(folder / path) for path in paths if path
        )
    name = row.get(_ID_COLUMN)
    return Item(row.get(_TEXT_COLUMN) or "", **media, id=None if name is None else str(name))


def _open_array(path: str) -> Corpus:
    try:
        with epath.Path(path).open("rb") as file:
            vectors = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array of numpy ({error})") from error
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(
            f"{path}: an array of shape {vectors.shape} and type {vectors.dtype}; expected one "
            "row of numbers an item"
        )
    return _corpus_of_vectors(path, [Item() for _ in vectors], vectors, {})


def _corpus_of_vectors(
    path: str, items: list[Item], vectors: Float[np.ndarray, "N E"], made_by: dict[str, str]
) -> Corpus:
    if not np.isfinite(vectors).all(axis=1).any():
        raise ValueError(f"{path}: holds no vectors")
    lacking = ValueError("has no vector in the file: embedding it failed")
    good = np.isfinite(vectors).all(axis=1)
    kept = [item if there else lacking for item, there in zip(items, good, strict=True)]
    return Corpus(path, kept, vectors, made_by)
