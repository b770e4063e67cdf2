"""The error of a record that cannot be used, which every error around one record becomes."""

import re
from collections.abc import Callable

from lco_jax.runtime.disks import DiskError, ShrunkError

_OF_THE_PROGRAM = (KeyboardInterrupt, SystemExit, GeneratorExit, DiskError, ShrunkError)
"""Errors that are of no record: a file of many records is gone, or the program is to end."""


class RecordError(ValueError):
    """A record, or a part of one, that cannot be used; the message names it and says why."""


class belonging_to:
    """Within, whatever goes wrong is the fault of one record or medium, which `place` names;
    panics of libraries in Rust, too, which are no `Exception`.

    Args:
        place: its name, or what finds it when it is needed.

    Raises:
        RecordError: in the place of any other error.
    """

    __slots__ = ("_place",)

    def __init__(self, place: str | Callable[[], str]):
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (RecordError, *_OF_THE_PROGRAM)):
            return
        place = self._place if isinstance(self._place, str) else self._place()
        raise RecordError(f"{place}: {in_words(error)}") from error


def in_words(error: BaseException) -> str:
    """What an error says; its kind as well, where it is none of ours and may say little."""
    said = str(error)
    return said if type(error) is ValueError and said else f"{type(error).__name__}: {said}"


def at(place: str, error: BaseException) -> RecordError:
    """The error, of the same kind, whose message begins with the place of its record."""
    said = str(error) if isinstance(error, RecordError) else in_words(error)
    if isinstance(error, RecordError) and re.match(rf"{re.escape(place)}\W", said):
        return error
    kind = type(error) if isinstance(error, RecordError) else RecordError
    found = kind(f"{place}: {said}")
    found.__cause__ = error
    return found
