"""The time that decoding takes."""

import time

from lco_jax.config import MediaLimits
from lco_jax.data.media.errors import MediaError


class Clock:
    """Runs from its making on; asked between packets and frames, it stops work on a medium that
    takes too long.
    """

    def __init__(self, name: str, limits: MediaLimits):
        self._name, self._limit_s = name, limits.max_decoding_seconds
        self._start_s = time.perf_counter()

    def check(self) -> None:
        """Raise MediaError if the time is over."""
        seconds = time.perf_counter() - self._start_s
        if seconds > self._limit_s:
            raise MediaError(
                f"{self._name}: decoding it has taken {seconds:.1f} s, more than "
                f"max_decoding_seconds={self._limit_s:g}; cut it into pieces, or raise the limit "
                "in data.media.limits"
            )
