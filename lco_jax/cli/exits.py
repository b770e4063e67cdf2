"""Exit codes and one-line errors, the same for every program."""

import atexit
import dis
import functools
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from lco_jax.runtime.errors import LostProcessError

DONE, FAILED, USAGE = 0, 1, 2
_PACKAGE = Path(__file__).parents[1]

log = logging.getLogger(__name__)


def program(main: Callable[[], int]) -> Callable[[], int]:
    """`main` with logging set up and errors turned into messages and exit codes.

    Errors of usage, configuration and data exit with 2: a `FileNotFoundError`, or a `ValueError`
    that a `raise` statement of this package raised. Failures of the run (`RuntimeError`, `OSError`)
    exit with 1. Anything else, such as a `ValueError` of JAX or numpy, is a bug: it keeps its
    traceback and exits with 1.
    """

    @functools.wraps(main)
    def wrapped() -> int:
        _collect_seldom()
        handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
        logging.basicConfig(format="%(message)s", handlers=[handler])
        # Of libraries only warnings: what they otherwise tell is of use to their developers.
        for ours in (_PACKAGE.name, main.__module__):  # which `python -m` calls `__main__`
            logging.getLogger(ours).setLevel(logging.INFO)
        # transformers warns where torch is not installed, and it is used for tokenizers only.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        # orbax logs whole tracebacks of errors that it also raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        try:
            return main()
        except FileNotFoundError as error:
            return _say(error, USAGE)
        except ValueError as error:
            if not _raised_here(error):
                raise
            return _say(error, USAGE)
        except LostProcessError as error:
            _say(error, FAILED)
            # No orderly end: JAX would wait for the lost process, and then abort this one.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(FAILED)
        except (RuntimeError, OSError) as error:
            return _say(error, FAILED)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT

    return wrapped


@functools.cache
def _collect_seldom() -> None:
    """Look for cycles of garbage more seldom, and not once more when the process ends.

    Imports and traced programs are hundreds of thousands of objects that stay: going through them
    again and again, and taking all of them apart at the end, is a fifth of a short run.
    """
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.freeze)


def _raised_here(error: ValueError) -> bool:
    """Whether a `raise` statement of this package raised the error.

    Libraries in C leave no frame of their own: the last one may be ours and the error theirs.
    """
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    operation = dis.opname[code.co_code[last.tb_lasti]]
    return operation == "RAISE_VARARGS" and Path(code.co_filename).is_relative_to(_PACKAGE)


def _say(error: Exception, code: int) -> int:
    log.debug("traceback of the error below", exc_info=error)
    sys.stderr.write(f"error: {error}\n")
    return code
