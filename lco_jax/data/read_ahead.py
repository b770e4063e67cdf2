"""How far a loader reads ahead: by the bytes of what waits, not by steps alone."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from lco_jax.data.encode.encoded import Encoded

_Found = TypeVar("_Found")


class ReadAhead:
    """Lets several threads read steps while those that wait take no more than so many bytes.

    How much a step takes is known when it is read; until then it counts as much as the largest, and
    the first is read alone. The step that is wanted next is read in any case, so that one that is
    larger goes through.

    Args:
        first_step: the one that is wanted first; the others follow it.
    """

    def __init__(self, max_bytes: int, first_step: int):
        self._max_bytes, self._wanted = max_bytes, first_step
        self._sizes: dict[int, int | None] = {}
        """Of the steps that wait; None of those that are being read."""
        self._largest: int | None = None
        self._closed = False
        self._changed = threading.Condition()

    def read(self, step: int, read: Callable[[int], _Found], size: Callable[[_Found], int]):
        """`read(step)`, which takes `size` of it, as soon as there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(step))
            self._sizes[step] = None
        found = read(step)
        with self._changed:
            self._sizes[step] = size(found)
            self._largest = max(self._largest or 0, self._sizes[step])
            self._changed.notify_all()
        return found

    def take(self, step: int) -> None:
        """A step waits no longer; the one after it is wanted next."""
        with self._changed:
            self._sizes.pop(step, None)
            self._wanted = step + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let all go on that wait for room: nobody takes a step any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, step: int) -> bool:
        if self._closed or step <= self._wanted:
            return True
        if self._largest is None:
            return False
        waiting = sum(self._largest if size is None else size for size in self._sizes.values())
        return waiting + self._largest <= self._max_bytes


def num_bytes(items: Sequence[Encoded | None]) -> int:
    """That the arrays of some items take."""
    total = 0
    for item in items:
        if item is None:
            continue
        total += item.tokens.nbytes
        if item.media:
            arrays = (item.positions, *(part for medium in item.media for part in medium.content))
            total += sum(getattr(array, "nbytes", 0) for array in arrays)
    return total
