"""JSON files of model folders, which strangers wrote: read within bounds, checked by schemas."""

import contextlib
import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from lco_jax.runtime.regular_files import open_regular

_MAX_BYTES = 16 << 20
"""Far more than configs and indices take."""
_MAX_SHOWN = 80
"""Characters of a value in an error message."""
_MAX_LISTED = 4
"""Errors in a message."""
_LIKENESS = 0.85
"""Of an unknown field's name to a known one, from which on it is a misspelling."""


class Schema(BaseModel):
    """What of an object in a JSON file is read. Other fields are allowed, unless their names are
    all but those of fields that are read. A field's description is what its errors advise."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


_S = TypeVar("_S", bound=Schema)


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: no regular file, too large a one, or one that is not JSON; the message names the
            file and the position.
    """
    content = parse(read_text(file), file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds {_kind(content)}, expected an object ({{...}})")
    return content


def read_text(file: Path, max_bytes: int = _MAX_BYTES) -> str:
    """The text in a file.

    Raises:
        ValueError: no regular file, too large a one, or no UTF-8 (which begins with the text, not
            with a byte-order mark).
    """
    with open_regular(file) as stream:
        # No more than there is: a read of a size makes room for all of it first.
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        content = stream.read(min(size, max_bytes) + 1)
    if len(content) > max_bytes:
        raise ValueError(
            f"{file} has more than {max_bytes} bytes, which is the most that is read; it is not "
            "what its name says"
        )
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(
            f"{file}: byte 0 begins a byte-order mark; save it as UTF-8 without one, or fetch it "
            "again"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 at byte {error.start}; fetch it again") from error


def parse(text: str, file: Path) -> Any:
    """The value that a JSON file holds as text.

    Raises:
        ValueError: it is not JSON, or an object has a field twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}; fetch it again") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the field {twice!r} twice")
    return found


def check(schema: type[_S], content: Any, where: Any) -> _S:
    """`content` as its schema has it.

    Args:
        where: what errors begin with: the file, and the place in it.

    Raises:
        ValueError: with every field (up to a few) that is wrong, and its value.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: {_shown(content)} is {_kind(content)}, expected an object")
    try:
        found = schema.model_validate(content)
    except ValidationError as error:
        said = [_describe(schema, one) for one in error.errors()]
        more = f"; and {len(said) - _MAX_LISTED} more" if len(said) > _MAX_LISTED else ""
        raise ValueError(f"{where}: {'; '.join(said[:_MAX_LISTED])}{more}") from None
    _refuse_misspelled(schema, content, where)
    return found


def _refuse_misspelled(schema: type[Schema], content: Mapping[str, Any], where: Any) -> None:
    """Raise ValueError if a field that is not read, here or in an object within, has all but the
    name of one that is."""
    fields = {field.alias or name: field for name, field in schema.model_fields.items()}
    for name, value in content.items():
        if name in fields:
            inner = _inner(fields[name])
            if inner is not None and isinstance(value, Mapping):
                _refuse_misspelled(inner, value, f"{where}: {name}")
            continue
        near = difflib.get_close_matches(name, fields.keys() - content.keys(), 1, _LIKENESS)
        if near:
            raise ValueError(
                f"{where}: the field {name!r} is not known; rename it if {near[0]!r} is meant, or "
                "remove it"
            )


def _inner(field: FieldInfo) -> type[Schema] | None:
    """The schema of the objects that a field holds."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((x for x in kinds if isinstance(x, type) and issubclass(x, Schema)), None)


def _describe(schema: type[Schema], error: Mapping[str, Any]) -> str:
    place = [str(part) for part in error["loc"]]
    advice = f"; {said}" if (said := _advice(schema, place)) else ""
    if error["type"] == "missing":
        return f"lacks {'.'.join(place)!r}{advice}"
    # Of alternatives pydantic adds the name of the type to the place.
    name = ".".join(part for part in place if "[" not in part and part != "str")
    context = error.get("ctx", {})
    if error["type"] in ("literal_error", "none_required"):
        said = f"is not supported; expected {context.get('expected', 'null')}"
    elif "error" in context:
        said = str(context["error"])
    else:
        said = error["msg"].replace("Input should", "should", 1)
    shown = f"={_shown(error['input'])}" if name else ""
    return f"{name}{shown} {said}{advice}".strip()


def _advice(schema: type[Schema], place: Sequence[str]) -> str | None:
    """The description of the innermost field at a place that has one."""
    advice, inner = None, schema
    for name in place:
        field = inner and inner.model_fields.get(name)
        if not field:
            break
        advice, inner = field.description or advice, _inner(field)
    return advice


def _shown(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= _MAX_SHOWN else said[: _MAX_SHOWN - 1] + "…"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


@contextlib.contextmanager
def naming(where: Any) -> Iterator[None]:
    """Errors of what is made of a file's fields begin with the file, and the place in it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
