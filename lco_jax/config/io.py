"""Configs as JSON, and the comparison that a resume makes."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from lco_jax import config as config_module
from lco_jax.config import SCIENCE, MediaConfig, TrainConfig

_NAMES_TODAY = {("MediaConfig", "sound_features"): "audio_features"}
"""Of fields that a class called otherwise in files of earlier revisions."""


_LENGTH = ("num_steps", "num_epochs")
ON_ERROR = "data.media.on_error"
"""The numbers of a run do not depend on it: where bad rows stop a run, there are none, and files
that turn out damaged are counted."""
LIMITS = "data.media.limits"
"""Nor on these: what they leave out is unreadable, and counted, too."""
FILE_NAMES = ("path", "paths")
"""Fields of sources that say where files are: what is in them is compared by digest."""


class ScienceChangedError(ValueError):
    """A resume was asked to go on with settings that change the numbers of the run."""


def to_json(value: Any) -> Any:
    """A config as plain JSON values; every dataclass carries its class name as `type`."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def reading_to_json(media: MediaConfig) -> dict[str, Any]:
    """What features of media depend on in their settings, as plain JSON values."""
    return {name: value for name, value in to_json(media).items() if name != "limits"}


def from_json(value: Any) -> Any:
    """The config that `to_json` wrote, in this revision or an earlier one.

    Raises:
        ValueError: unknown class or field, with the nearest known one.
    """
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    cls = getattr(config_module, str(name), None)
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"config has an object of unknown type {name!r}")
    known = [field.name for field in dataclasses.fields(cls)]
    value = with_names_of_today(value)
    fields = {key: from_json(item) for key, item in value.items() if key != "type"}
    for key in fields:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1) or known
            raise ValueError(f"{name} has no field {key!r}; did you mean {near[0]!r}?")
    return cls(**fields)


def with_names_of_today(content: Any) -> Any:
    """JSON of configs that an earlier revision wrote, with fields called as they are now."""
    if isinstance(content, list):
        return [with_names_of_today(item) for item in content]
    if not isinstance(content, dict):
        return content
    cls = str(content.get("type"))
    return {
        _NAMES_TODAY.get((cls, key), key): with_names_of_today(item)
        for key, item in content.items()
    }


MODEL_PLACE = ("model.path", "model.revision")
"""Where a base model is found; where its contents are compared, these may differ."""


def check_resumable(
    old: TrainConfig,
    new: TrainConfig,
    *,
    may_change_length: bool = False,
    may_move_model: bool = False,
) -> None:
    """Allow a resume that changes only how the run is executed; files may be found by other paths.

    Args:
        may_change_length: allow other numbers of steps or epochs, too.
        may_move_model: allow the base model at another place, too.

    Raises:
        ScienceChangedError: names every science field that differs, with both values.
    """
    before, after = to_json(old), to_json(new)
    for content in (before, after):
        content["data"]["sources"] = [_without_files(one) for one in content["data"]["sources"]]
    ignored = (ON_ERROR, LIMITS, *(MODEL_PLACE if may_move_model else ()))
    names = [name for name in SCIENCE if not (may_change_length and name in _LENGTH)]
    changes = [
        change
        for name in names
        for change in find_changes(name, before[name], after[name], ignore=ignored)
    ]
    if changes:
        raise ScienceChangedError(
            "the run was started with other settings:\n  "
            + "\n  ".join(changes)
            + "\nset them back, or choose a new --workdir to start another run"
        )


def _without_files(source: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in source.items() if name not in FILE_NAMES}


def find_changes(path: str, old: Any, new: Any, *, ignore: Sequence[str] = ()) -> list[str]:
    """What differs between two values of `to_json`: names of settings, with both values.

    Args:
        path: what errors call the value.
        ignore: fields that may differ: by name, wherever they are, or by whole path.
    """
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type"):
        names = [*old, *(name for name in new if name not in old)]
        return [
            change
            for name in names
            if name not in ignore and f"{path}.{name}" not in ignore
            for change in find_changes(
                f"{path}.{name}", old.get(name), new.get(name), ignore=ignore
            )
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            change
            for number, parts in enumerate(zip(old, new, strict=True))
            for change in find_changes(f"{path}.{number}", *parts, ignore=ignore)
        ]
    return [] if old == new else [f"{path}: {old!r} in the run, {new!r} now"]
