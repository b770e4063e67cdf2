"""Items to embed: the rows of tables, or the files of a folder."""

import copy
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from etils import epath

from lco_jax.data.errors import RecordError, belonging_to
from lco_jax.data.media.kinds import kind_of_name
from lco_jax.data.records import Item
from lco_jax.data.sources.files import (
    expand,
    is_table,
    open_table,
    split_pattern,
    walk,
)
from lco_jax.data.sources.jsonl import JsonLines, decode
from lco_jax.data.sources.roles import ColumnRoles, make_parser
from lco_jax.data.sources.table import Items
from lco_jax.runtime.regular_files import read_regular

_logger = logging.getLogger(__name__)

_TEXT = ".txt"


def open_items(
    path: str | Sequence[str], columns: ColumnRoles = (), media_root: str | None = None
) -> "Items | FileItems":
    """The items of a file of rows, of a folder with media and texts, or of files that match a
    pattern. None is read before it is asked for.

    Args:
        path: a file whose name says nothing is one of JSON Lines; of several paths, none may be a
            folder.
        columns: what is what in a table, such as `("body", "text")` (empty: as columns are called).
        media_root: folder of relative media paths in tables (None: that of each table).

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: there is nothing to embed, or tables and other files are mixed.
    """
    paths = [path] if isinstance(path, str) else list(path)
    if len(paths) > 1:
        return _open_several(paths, columns, media_root)
    (path,) = paths
    if epath.Path(path).is_dir():
        files = FileItems(path, sorted(_relative(file, path) for file in walk(epath.Path(path))))
        return _require_no_columns(path, files, columns)
    found = expand(path)
    tables = [is_table(file) for file in found]
    if not any(tables) and (found != [path] or _is_item(path)):
        folder = split_pattern(path)[0] if found != [path] else os.path.dirname(path) or "."
        files = FileItems(folder, [_relative(epath.Path(file), folder) for file in found])
        return _require_no_columns(path, files, columns)
    return _open_tables(path, found, columns, media_root)


def _open_several(
    paths: Sequence[str], columns: ColumnRoles, media_root: str | None
) -> "Items | FileItems":
    """What a shell makes of a pattern without quotes, or the like."""
    folders = [path for path in paths if epath.Path(path).is_dir()]
    if folders:
        raise ValueError(f"{folders[0]} is a folder among {len(paths)} inputs; give it alone")
    found = list(dict.fromkeys(file for path in paths for file in expand(path)))
    if any(map(is_table, found)) or not any(map(_is_item, found)):
        return _open_tables(" ".join(paths), found, columns, media_root)
    parents = {os.path.dirname(file) or "." for file in found}
    if len(parents) > 1:
        raise ValueError(
            f"media of several folders, {' and '.join(sorted(parents)[:2])}: give one folder that "
            "holds them, or a pattern in quotes such as 'a/**/*.png'"
        )
    (folder,) = parents
    files = FileItems(folder, [_relative(epath.Path(file), folder) for file in found])
    return _require_no_columns(folder, files, columns)


def _open_tables(
    path: str, found: Sequence[str], columns: ColumnRoles, media_root: str | None
) -> Items:
    tables = [is_table(file) for file in found]
    if any(tables) and not all(tables):
        other = found[tables.index(False)]
        raise ValueError(
            f"{path} matches tables such as {found[tables.index(True)]} and other files such as "
            f"{other}; give a pattern for one of them"
        )
    opened = [open_table(file) if is_table(file) else JsonLines(file) for file in found]
    folders = [epath.Path(media_root) if media_root else table.folder for table in opened]
    parsers = [
        make_parser(table, Item, columns, folder)
        for table, folder in zip(opened, folders, strict=True)
    ]
    items = Items(opened, parsers, folders, repr(tuple(columns)) if columns else "")
    if not len(items):
        raise ValueError(f"{path}: holds no items")
    return items


class FileItems(Sequence[Item | ValueError]):
    """Media and texts of a folder, each an item whose id is its path there; slices are views. A
    file is looked at when it is asked for.

    Args:
        names: of files in the folder; those of other kinds are left out.

    Raises:
        ValueError: none is of a known kind.
    """

    def __init__(self, folder: str, names: Sequence[str]):
        self._folder = epath.Path(folder)
        self._names = [name for name in names if _is_item(name)]
        others = Counter(PurePath(name).suffix.lower() or "none" for name in names)
        others -= Counter(PurePath(name).suffix.lower() for name in self._names)
        if not self._names:
            raise ValueError(
                f"{folder}: holds no items; expected media or {_TEXT} files, found endings "
                f"{sorted(others)}"
            )
        if others:
            said = ", ".join(f"{count} with {suffix}" for suffix, count in sorted(others.items()))
            _logger.info("%s: files of other kinds are left out: %s", folder, said)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int | slice) -> "Item | ValueError | FileItems":
        if isinstance(index, slice):
            part = copy.copy(self)
            part._names = self._names[index]
            return part
        name = self._names[index]
        path = self._folder / name
        kind = kind_of_name(name)
        if kind is not None:
            return Item(id=name, **{f"{kind}s": (os.fspath(path),)})
        try:
            with belonging_to(os.fspath(path)):
                item = Item(decode(read_regular(path)).removeprefix("\ufeff"), id=name)
        except RecordError as error:
            return error
        return RecordError(f"{path}: is empty") if item.is_empty else item

    @property
    def digest(self) -> str:
        """Hash of what the items depend on: the files by name, size and time."""
        digest = hashlib.blake2b(os.fsencode(self._folder), digest_size=8)
        for name in self._names:
            stat = (self._folder / name).stat()
            digest.update(repr((name, stat.length, stat.mtime)).encode())
        return digest.hexdigest()


def _is_item(path: str) -> bool:
    return PurePath(path).suffix.lower() == _TEXT or kind_of_name(path) is not None


def _relative(file: epath.Path, folder: str) -> str:
    return file.relative_to(epath.Path(folder)).as_posix()


def _require_no_columns(path: str, files: FileItems, columns: ColumnRoles) -> FileItems:
    if columns:
        raise ValueError(f"{path} holds files and no table; leave out --columns {dict(columns)}")
    return files
