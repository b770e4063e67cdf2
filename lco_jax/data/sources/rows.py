"""Rows of text columns from parquet, CSV, TSV and JSON Lines files, in one way."""

import csv
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Layout = tuple[str, ...]
"""Names of the columns to read, in the order in which they are returned."""

_SPLIT_NAMES = {"train": "train", "dev": "dev", "validation": "dev", "val": "dev", "test": "test"}
_logger = logging.getLogger(__name__)


def find_files(source: Path) -> dict[str, list[Path]]:
    """The readable files under `source` (or `source` itself) by split, sorted.

    A file belongs to the split its name mentions (`dev-00000-of-00001.parquet`), else to train.

    Raises:
        FileNotFoundError: there are none.
    """
    candidates = [source] if source.is_file() else sorted(source.rglob("*"))
    splits: dict[str, list[Path]] = {}
    for path in candidates:
        if path.suffix in _READERS:
            words = re.split(r"[^a-z]+", path.stem.lower())
            named = [_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES]
            splits.setdefault(named[0] if named else "train", []).append(path)
    if not splits:
        raise FileNotFoundError(f"{source} holds no {', '.join(_READERS)} file")
    return splits


def download_from_hub(repo: str, pattern: str) -> Path:
    """The local snapshot of the files of a hub dataset that match `pattern`.

    Raises:
        FileNotFoundError: the hub cannot be reached, or has no such files.
    """
    from huggingface_hub import snapshot_download

    _logger.info("downloading %s of dataset %s", pattern, repo)
    try:
        return Path(snapshot_download(repo, repo_type="dataset", allow_patterns=[pattern]))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"could not download {pattern} of dataset {repo} ({type(error).__name__}: {error}); "
            "give a local copy with --source-dir"
        ) from error


def read_rows(
    path: Path, layouts: Sequence[Layout], *, any_names: bool = False
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Row numbers (from 1; line numbers in text files) and texts of the columns of a layout.

    Args:
        path: a parquet, CSV, TSV or JSON Lines file, by its suffix. A CSV file starts with the
            column names; a TSV file may, if they are those of a layout.
        layouts: alternatives; the first whose columns are all there is read.
        any_names: if no layout fits and there are as many columns as in a layout, read those.

    Raises:
        ValueError: no layout fits, or a field is missing, empty or no text (`FILE:ROW` is named).
    """
    columns = None
    try:
        for number, record in _READERS[path.suffix](path, layouts):
            columns = columns or _choose_columns(path, record, layouts, any_names)
            texts = tuple(record.get(column) for column in columns)
            for column, text in zip(columns, texts, strict=True):
                if not isinstance(text, str) or not text.strip():
                    raise ValueError(
                        f"{path}:{number}: column {column!r} is {text!r}, expected a text"
                    )
            yield number, texts
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


def _choose_columns(
    path: Path, record: dict[str, object], layouts: Sequence[Layout], any_names: bool
) -> Layout:
    for layout in layouts:
        if set(layout) <= record.keys():
            return layout
    if any_names and len(record) == len(layouts[0]):
        return tuple(record)
    raise ValueError(
        f"{path} has columns {list(record)}; expected {' or '.join(map(str, layouts))}"
    )


def _read_parquet(path: Path, layouts: Sequence[Layout]) -> Iterator[tuple[int, dict[str, object]]]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield number, record


def _read_csv(path: Path, layouts: Sequence[Layout]) -> Iterator[tuple[int, dict[str, object]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
            yield reader.line_num, record


def _read_tsv(path: Path, layouts: Sequence[Layout]) -> Iterator[tuple[int, dict[str, object]]]:
    # Quotes are text here: corpora of sentences do not escape them.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = layouts[0]
        for row in reader:
            if reader.line_num == 1 and any(set(layout) <= set(row) for layout in layouts):
                names = row
                continue
            if len(row) != len(names):
                raise ValueError(
                    f"{path}:{reader.line_num}: {len(row)} columns, expected {len(names)}"
                )
            yield reader.line_num, dict(zip(names, row, strict=True))


def _read_jsonl(path: Path, layouts: Sequence[Layout]) -> Iterator[tuple[int, dict[str, object]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}:{number}: expected an object, got {line[:40]!r}")
            yield number, record


_READERS: dict[str, Callable[[Path, Sequence[Layout]], Iterator[tuple[int, dict[str, object]]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
}
