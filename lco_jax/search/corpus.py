"""What is searched: a folder of files, a JSON Lines file of items, or a file of vectors."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath
from jaxtyping import Float

from lco_jax.data.records import Item
from lco_jax.data.sources.jsonl import ItemLines
from lco_jax.embed.parts import ABOUT_KEY

Kind = Literal["text", "image", "audio", "video", "mixed", "vector"]
KINDS: tuple[Kind, ...] = ("text", "image", "audio", "video", "mixed", "vector")
"""Of items; `mixed` ones have several, and of a `vector` nothing else is known."""

SUFFIXES: dict[str, Kind] = {
    suffix: kind
    for kind, suffixes in {
        "text": "txt",
        "image": "avif bmp gif jp2 jpeg jpg pbm pgm png ppm tif tiff webp",
        "audio": "aac ac3 aif aiff amr au caf flac m4a mp3 oga ogg opus w64 wav wma wv",
        "video": "3gp avi flv m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv",
    }.items()
    for suffix in suffixes.split()
}
"""What files of a folder are read as."""

_VECTOR_COLUMN, _ID_COLUMN, _TEXT_COLUMN = "vector", "id", "text"
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
    media = {"image": item.images, "audio": item.audios, "video": item.videos}
    kinds: list[Kind] = [kind for kind, sources in media.items() if sources]
    if item.text.strip():
        kinds.append("text")
    if not kinds:
        return "vector"
    return kinds[0] if len(kinds) == 1 else "mixed"


def open_corpus(path: str) -> Corpus:
    """A folder (all files of known kinds, recursively, in order of their names; hidden ones are
    left out), a JSON Lines file of items, or vectors as `embed.py` writes them (`.parquet`,
    `.npy`).

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: nothing in it can be searched, or the file is of another kind.
    """
    location = epath.Path(path)
    if location.is_dir():
        items: Sequence[Item | ValueError] = list(_folder_items(Path(path)))
        if not items:
            known = ", ".join(sorted(SUFFIXES))
            raise ValueError(f"{path}: holds no file of a known kind; known are {known}")
        return Corpus(path, items)
    if not location.exists():
        raise FileNotFoundError(f"{path}: no such folder or file")
    suffix = location.suffix.lower()
    if suffix == ".parquet":
        return _open_table(path)
    if suffix == ".npy":
        return _open_array(path)
    if suffix not in (".jsonl", ".json", ".ndjson"):
        raise ValueError(
            f"{path}: expected a folder, a JSON Lines file (.jsonl) of items, or vectors of "
            "embed.py (.parquet, .npy)"
        )
    items = list(ItemLines(path))
    if not items:
        raise ValueError(f"{path}: holds no items")
    return Corpus(path, items)


# ------------------------------------------------------------------------------------- a folder


def _folder_items(folder: Path) -> Iterator[Item | ValueError]:
    for path in sorted(_files(folder)):
        name = os.fspath(path.relative_to(folder))
        kind = SUFFIXES.get(path.suffix.lower().removeprefix("."))
        if kind == "text":
            yield _text_item(path, name)
        elif kind is not None:
            yield Item(**{f"{kind}s": (os.fspath(path),)}, id=name)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _text_item(path: Path, name: str) -> Item | ValueError:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return ValueError(f"{path}: cannot be read as UTF-8 ({error})")
    item = Item(text, id=name)
    return ValueError(f"{path}: the file is empty") if item.is_empty else item


# ---------------------------------------------------------------------------------- vectors


def _open_table(path: str) -> Corpus:
    try:
        with epath.Path(path).open("rb") as file:
            table = pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error})") from error
    if _VECTOR_COLUMN not in table.column_names:
        raise ValueError(
            f"{path}: has columns {table.column_names}, but no {_VECTOR_COLUMN!r}; expected a "
            "table that embed.py wrote"
        )
    vectors = _matrix(path, table[_VECTOR_COLUMN])
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
            path if "://" in path else os.fspath(folder / path) for path in paths if path
        )
    name = row.get(_ID_COLUMN)
    return Item(row.get(_TEXT_COLUMN) or "", **media, id=None if name is None else str(name))


def _open_array(path: str) -> Corpus:
    with epath.Path(path).open("rb") as file:
        vectors = np.load(file, allow_pickle=False)
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
