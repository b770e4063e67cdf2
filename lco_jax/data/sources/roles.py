"""What the columns of a table are: `(column, role)`, such as `("query", "anchor")`."""

import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from etils import epath

from lco_jax.data.records import (
    Exchange,
    Item,
    Record,
    Triplet,
    parse_exchange,
    parse_item,
    parse_triplet,
)
from lco_jax.data.sources.table import Table

_T = TypeVar("_T")

ColumnRoles = Sequence[tuple[str, str]]
_MEDIA_KEYS = ("image_path", "audio_path", "video_path")
_ITEM_KEYS = ("text", *_MEDIA_KEYS)
_ITEMS = {Triplet: ("anchor", "positive", "negative"), Exchange: ("prompt",), Item: ()}
"""Roles that are items: their columns may be of one key, as in `anchor.image_path`."""
_VALUES = {Triplet: ("id",), Exchange: ("response", "text", "id"), Item: (*_ITEM_KEYS, "id")}
_NEEDED = {Triplet: ("anchor", "positive"), Exchange: ("prompt", "response"), Item: ()}
_PARSE: dict[type, Callable[..., Record | Item]] = {
    Triplet: parse_triplet,
    Exchange: parse_exchange,
    Item: parse_item,
}


def make_parser(
    table: Table, kind: type[_T], columns: ColumnRoles, folder: epath.Path
) -> Callable[[object], _T]:
    """What makes a record of the JSON value of a row; the table then reads what that needs.

    Args:
        kind: `Triplet`, `Exchange` or `Item`.
        columns: what is what (empty: columns are called like their roles; objects of JSON Lines
            are the records themselves).
        folder: of relative media paths.

    Raises:
        ValueError: a column that is not there, no such role, or columns that make no record.
    """
    parse = partial(_PARSE[kind], folder=folder)
    if not columns:
        columns = _named_like_roles(table, kind)
        if table.holds_records:
            return parse
    _check(table, kind, columns)
    table.use({name for name, _ in columns})
    return lambda row: parse(_value_of(row, kind, columns))


def roles_of(kind: type) -> list[str]:
    """All that a column can be."""
    items = [
        name for role in _ITEMS[kind] for name in (role, *(f"{role}.{key}" for key in _ITEM_KEYS))
    ]
    return items + list(_VALUES[kind])


def _named_like_roles(table: Table, kind: type) -> ColumnRoles:
    """The columns that are called like roles.

    Raises:
        ValueError: they make no record, or one has almost the name of a role.
    """
    known, names = roles_of(kind), table.columns or ()
    for name in () if table.holds_records else names:
        near = difflib.get_close_matches(name, known, 1, cutoff=0.8)
        if near and name not in known and near[0] not in names:
            raise ValueError(
                f"{table.path} has a column {name!r}, which is no role; did you mean {near[0]!r}? "
                f"Rename it, or say what is what: {_example(table, kind)}"
            )
    columns = [(name, name) for name in names if name in known]
    roles = {role.partition(".")[0] for _, role in columns} - {"id"}
    if table.columns and not roles:
        raise ValueError(
            f"{table.path} has columns {list(names)}, which do not say what they are; say it: "
            f"{_example(table, kind)}"
        )
    return columns


def _example(table: Table, kind: type) -> str:
    """How to say what is what, with columns of the table."""
    needed = _NEEDED[kind] or ("text",)
    spare = [name for name in table.columns or () if name not in (*needed, "", "id")]
    pairs = zip(itertools.chain(spare, itertools.repeat("COLUMN")), needed, strict=False)
    return "--columns " + ",".join(f"{name}={role}" for name, role in pairs)


def _check(table: Table, kind: type, columns: ColumnRoles) -> None:
    names, known = table.columns or (), roles_of(kind)
    taken: dict[str, str] = {}
    for name, role in columns:
        if role not in known:
            if role in names and name in known:
                raise ValueError(
                    f"{name}={role}: the column comes first; did you mean {role}={name}?"
                )
            raise ValueError(
                f"{name}={role}: no such role{_near(role, known)} Roles are {known}, and the "
                f"columns of {table.path} are {list(names)}"
            )
        if name not in names:
            raise ValueError(
                f"{table.path} has no column {name!r}{_near(name, names)} It has {list(names)}"
            )
        may_repeat = role == "negative" or is_media(role)
        # `anchor` alone is the text of the anchor.
        whole = f"{role}.text" if role in _ITEMS[kind] else role
        if whole in taken and not may_repeat:
            raise ValueError(f"both {taken[whole]!r} and {name!r} are {role}; leave one out")
        taken[whole] = name
    roles = [role for _, role in columns]
    if roles.count("negative") > 1 and any(role.startswith("negative.") for role in roles):
        raise ValueError(
            "several columns are negatives, so a medium given as negative.image_path or the like "
            "could belong to any of them; name one negative, or give negatives in JSON Lines"
        )
    present = {role.partition(".")[0] for role in roles}
    lacking = [role for role in _NEEDED[kind] if role not in present]
    if lacking and "text" not in present:
        raise ValueError(
            f"no column of {table.path} is the {lacking[0]}; it has {list(names)}: say which, "
            f"COLUMN={lacking[0]}"
        )


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


# ------------------------------------------------------------------------------ values of a row


def _value_of(row: object, kind: type, columns: ColumnRoles) -> dict[str, object]:
    """The JSON value of a record."""
    if not isinstance(row, dict):
        raise ValueError(f"is of type {type(row).__name__}, expected an object with columns")
    cells: dict[str, list[object]] = {}
    for name, role in columns:
        cell = _cell(name, row.get(name), role)
        if cell is not None:
            cells.setdefault(role, []).append(cell)
    value = {role: _together(cells[role]) for role in _VALUES[kind] if role in cells}
    for role in _ITEMS[kind]:
        item = {
            key: _together(cells[f"{role}.{key}"]) for key in _ITEM_KEYS if f"{role}.{key}" in cells
        }
        if role in cells and not item:
            value[role] = _together(cells[role])
        elif role in cells:
            value[role] = {"text": cells[role][0]} | item
        elif item:
            value[role] = item
    for role in _NEEDED[kind]:
        own = [name for name, other in columns if other.partition(".")[0] == role]
        if own and role not in value:
            raise ValueError(f"{role} is empty (column {', '.join(map(repr, own))})")
    return value


def _together(cells: list[object]) -> object:
    """One cell as it is; several, and the members of lists among them, as a list."""
    if len(cells) == 1:
        return cells[0]
    return [one for cell in cells for one in (cell if isinstance(cell, list) else [cell])]


def _cell(name: str, value: object, role: str) -> object:
    """What a column holds; None if it is empty.

    Raises:
        ValueError: nothing of that kind can have that role.
    """
    if value is None or value == [] or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and not value.strip():
        return None
    for one in _leaves(value):
        if isinstance(one, str):
            if "\0" in one:
                raise ValueError(f"column {name!r} holds a NUL character")
        elif one is not None and not (role == "id" and isinstance(one, int)):
            wanted = "paths of files" if is_media(role) else "texts"
            raise ValueError(
                f"column {name!r} holds {type(one).__name__} ({str(one)[:40]!r}), expected {wanted}"
            )
    return value


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield value


def is_media(role: str) -> bool:
    """Whether columns of a role hold paths of media."""
    return role.rpartition(".")[2] in _MEDIA_KEYS
