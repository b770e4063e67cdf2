"""Errors of remote storage that pass by themselves, and trying again."""

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

_T = TypeVar("_T")

WAITS_S = (1.0, 4.0, 16.0, 60.0)
"""How long to wait before each further try."""

_NUMBERS = (errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EAGAIN, errno.EHOSTUNREACH)
_WORDS = re.compile(
    r"timed?[ -]?out|deadline.exceeded|\bunavailable\b|connection (reset|refused|aborted|closed)|"
    r"broken pipe|temporarily unavailable|temporary failure|too many requests|rate.?limit|"
    r"(http|status|code|error)\W{0,3}(408|429|500|502|503|504)\b",
    re.IGNORECASE,
)
"""What such errors say, of whatever library they are."""


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one that it came from, passes by itself."""
    return any(_is_transient(one) for one in _chain(error))


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, FileNotFoundError | PermissionError):
        return False
    number = getattr(error, "errno", None)
    return number in _NUMBERS or bool(_WORDS.search(str(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def try_again(act: Callable[[], _T], what: str) -> _T:
    """The result of `act`, which is called again, a while later, where an error is transient.

    Raises:
        Exception: that of the last try, or one that would not pass.
    """
    for wait_s in WAITS_S:
        try:
            return act()
        except Exception as error:
            if not is_transient(error):
                raise
            first = next(iter(str(error).splitlines()), type(error).__name__)
            log.warning("%s: %s; trying again in %g s", what, first[:300], wait_s)
            time.sleep(wait_s)
    return act()
