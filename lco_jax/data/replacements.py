"""What becomes of training examples that cannot be read: they stop the run, or are replaced."""

import logging
from collections.abc import Callable

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.errors import RecordError
from lco_jax.data.media.errors import TooLongError

_log = logging.getLogger(__name__)

_STRIDE = 1_000_000_007
_MOST = 8
"""How far on the example is that replaces an unreadable one: beyond what a run reads, and by a
prime, so that it is another place in another order of the source."""

Roles = list[Encoded | RecordError | None]
"""What is encoded of an example."""


class Replacements:
    """Does with unreadable examples what the run asks for.

    Args:
        encode: the roles of the example at a place of the endless sequence; errors name the record.
        num_needed: how many of the first roles an example cannot do without.
        skip: whether unreadable examples are replaced; else they stop the run.
        max_seconds: of a recording, beyond which it counts as unreadable if the run says so.
    """

    def __init__(
        self,
        encode: Callable[[int], Roles],
        num_needed: int,
        *,
        skip: bool,
        max_seconds: float,
    ):
        self._encode, self._num_needed = encode, num_needed
        self._skip, self._max_seconds = skip, max_seconds
        self._told: set[str] = set()

    def refuse(self, error: RecordError) -> None:
        """Raise the error, unless the run goes on without the example."""
        if not self._skip:
            raise type(error)(
                f"{error}; or set data.media.on_error to skip, which replaces such examples"
            ) from error

    def replace(self, roles: Roles, place: int) -> list[Encoded | None]:
        """An example without what is unreadable of it, or another one if it needs that.

        Raises:
            RecordError: so many others are unreadable, too.
        """
        for attempt in range(_MOST + 1):
            if attempt:
                roles = self._encode(place + attempt * _STRIDE)
            for error in roles:
                if isinstance(error, RecordError):
                    self.refuse(error)
                    self._tell(error)
            if not any(isinstance(role, RecordError) for role in roles[: self._num_needed]):
                return [None if isinstance(role, RecordError) else role for role in roles]
        raise RecordError(
            f"example {place} and {_MOST} others in its place are unreadable (above); check that "
            "the media files are there, and that the model reads such media"
        )

    def _tell(self, error: RecordError) -> None:
        """Say once what is left out; it comes again in every pass. Recordings that are longer than
        the run asks for are no fault, and named once for all.
        """
        known = TooLongError.__name__ if isinstance(error, TooLongError) else str(error)
        if known in self._told:
            return
        self._told.add(known)
        if isinstance(error, TooLongError):
            _log.info(
                "recordings of more than %g s are replaced by others, as "
                "data.media.audio_when_longer=refuse asks",
                self._max_seconds,
            )
        else:
            _log.warning("left out: %s", error)
