"""Files by path, folder or pattern, and the tables that they hold."""

import os
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

from etils import epath

from lco_jax.data.sources.csv_table import CsvTable
from lco_jax.data.sources.jsonl import JsonLines
from lco_jax.data.sources.table import Table
from lco_jax.runtime.regular_files import NotRegularFileError, check_regular

_WILDCARDS = frozenset("*?[")
_PACKED = ".gz"


def find_files(paths: Sequence[str]) -> list[str]:
    """The tables that files, folders and patterns such as `shards/*.jsonl` name, in this order;
    those of one pattern or folder sorted by name, hidden ones left out.

    Raises:
        FileNotFoundError: a path names no file.
    """
    found: dict[str, None] = {}
    for path in paths:
        if epath.Path(path).is_dir():
            own = [file for file in _all_in(path) if is_table(file)]
            if not own:
                raise FileNotFoundError(f"{path}: holds no file with one of {_SUFFIXES}")
        else:
            own = expand(path)
        found |= dict.fromkeys(own)
    return list(found)


def expand(path: str) -> list[str]:
    """The file itself, or those that match a pattern, sorted by name.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a named pipe, a socket or a device.
    """
    if epath.Path(path).exists() or not has_wildcard(path):
        try:
            check_regular(path)
        except NotRegularFileError as error:
            raise ValueError(str(error)) from error
        if not epath.Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return [path]
    folder, pattern = split_pattern(path)
    found = sorted({os.fspath(file) for file in _match(epath.Path(folder), pattern.split("/"))})
    if not found:
        raise FileNotFoundError(f"{path}: no file matches")
    return found


def _match(folder: epath.Path, parts: Sequence[str]) -> Iterator[epath.Path]:
    """The files that match; `glob` of epath gives addresses of some file systems twice over."""
    first, *rest = parts
    if first == "**":
        yield from _match(folder, rest or ["*"])
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if first == "**" and path.is_dir():
            yield from _match(path, parts)
        elif rest and first != "**" and fnmatchcase(path.name, first):
            yield from _match(path, rest)
        elif not rest and fnmatchcase(path.name, first) and path.is_file():
            yield path


def has_wildcard(path: str) -> bool:
    """Whether a path is a pattern."""
    return not _WILDCARDS.isdisjoint(path)


def split_pattern(path: str) -> tuple[str, str]:
    """The folder in which a pattern looks, and what it looks for."""
    parts = path.split("/")
    fixed = next(number for number, part in enumerate(parts) if has_wildcard(part))
    folder = "/".join(parts[:fixed])
    return folder or ("/" if fixed else "."), "/".join(parts[fixed:])


def stem_of(path: str) -> str:
    """What a file, a folder or the files of a pattern are called: `my` of `my.csv.gz`, `shards` of
    `shards/*.csv`.
    """
    fixed = split_pattern(path)[0] if has_wildcard(path) else path
    return PurePath(PurePath(fixed).name.removesuffix(_PACKED)).stem or "data"


def is_table(path: str) -> bool:
    """Whether a file is one of rows, by its name."""
    return _suffix(path) in _OPENERS and path != _suffix(path)


def open_tables(paths: Sequence[str]) -> list[Table]:
    """The tables in files, folders and patterns.

    Raises:
        FileNotFoundError: a path names no file.
        ValueError: a file is of another kind, or cannot be read.
    """
    return [open_table(path) for path in find_files(paths)]


def open_table(path: str) -> Table:
    """The table in a file, by the end of its name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is of another kind, or cannot be read.
    """
    if not is_table(path):
        raise ValueError(
            f"{path}: expected a file with one of {_SUFFIXES}, all but .parquet also packed (.gz)"
        )
    return _OPENERS[_suffix(path)](path)


def _suffix(path: str) -> str:
    name = PurePath(path).name.lower()
    suffix = PurePath(name.removesuffix(_PACKED)).suffix
    return "" if suffix == ".parquet" and name.endswith(_PACKED) else suffix


def _all_in(folder: str) -> Collection[str]:
    return sorted(os.fspath(file) for file in walk(epath.Path(folder)))


def walk(folder: epath.Path) -> list[epath.Path]:
    """All files in a folder and those within it; hidden ones are left out."""
    found = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        found += walk(path) if path.is_dir() else [path]
    return found


def _open_parquet(path: str) -> Table:
    # pyarrow takes half a second to import.
    from lco_jax.data.sources.parquet_table import ParquetTable

    return ParquetTable(path)


_OPENERS = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".parquet": _open_parquet,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": JsonLines,
}
_SUFFIXES = list(_OPENERS)
