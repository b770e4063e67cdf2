"""What is what in the records of a prepared dataset, and the examples they make."""

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from lco_jax.config import Columns
from lco_jax.data.records import Exchange, Item, MediaSource, Triplet

_ANCHORS = ("image", "audio", "video", "anchor")
_POSITIVES = ("positive", "name", "transcript", "caption")
_NEGATIVES = ("negatives", "negative")
"""What features are called, if nobody says what is what: the first that is there."""


def feature_of(record: Mapping, path: str) -> object:
    """What a record has under a name, or under one within another: `"names/id"`.

    Raises:
        KeyError: there is no such feature; its argument is `path`.
    """
    try:
        return functools.reduce(operator.getitem, path.split("/"), record)
    except (KeyError, TypeError) as error:  # or a name within what is no group
        raise KeyError(path) from error


def infer_columns(names: Collection[str]) -> Columns | None:
    """What is what among features of these names; None if they do not say."""
    anchor, positive = (_first(known, names) for known in (_ANCHORS, _POSITIVES))
    if anchor is None or positive is None:
        return None
    negatives = tuple(name for name in _NEGATIVES if name in names)
    return Columns(positive, **{anchor: anchor}, negatives=negatives, id=_first(("id",), names))


def _first(known: Sequence[str], names: Collection[str]) -> str | None:
    return next((name for name in known if name in names), None)


def make_triplet(record: Mapping, columns: Columns) -> Triplet:
    """The anchor of a record, its positive, and the negatives that it has."""
    negatives = (text for path in columns.negatives for text in texts_of(record, path))
    return Triplet(
        anchor=_shown(record, columns),
        positive=Item(_text(record, columns.positive)),
        negatives=tuple(Item(text) for text in negatives if text.strip()),
        id=_id(record, columns),
    )


def make_exchange(
    record: Mapping, columns: Columns, *, asked: str | None, response: str
) -> Exchange:
    """What is shown of a record and asked about it, with its response.

    Args:
        asked: a question (None: nothing is shown and asked).
        response: the feature that answers.
    """
    prompt = Item() if asked is None else _shown(record, columns, asked)
    return Exchange(prompt, _text(record, response), _id(record, columns))


def _shown(record: Mapping, columns: Columns, asked: str = "") -> Item:
    """The anchor of a record, and what is asked about it."""
    text = "" if columns.anchor is None else _text(record, columns.anchor)
    item = Item(
        text="\n".join(filter(None, (text, asked))),
        images=_files(record, columns.image),
        audios=_files(record, columns.audio),
        videos=_files(record, columns.video),
    )
    return replace(item, id=_id(record, columns)) if item.has_media else item


def _id(record: Mapping, columns: Columns) -> str | None:
    return None if columns.id is None else _text(record, columns.id)


def _files(record: Mapping, path: str | None) -> tuple[MediaSource, ...]:
    if path is None:
        return ()
    value = feature_of(record, path)
    return tuple(value) if isinstance(value, list) else (value,)


def _text(record: Mapping, path: str) -> str:
    return ", ".join(texts_of(record, path))


def texts_of(record: Mapping, path: str) -> list[str]:
    """The texts that a record has under a name: one, or the members of a list."""
    value = feature_of(record, path)
    values = value if isinstance(value, list) else [value]
    return [one.decode() if isinstance(one, bytes) else str(one) for one in values]
