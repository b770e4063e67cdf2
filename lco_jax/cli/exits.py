"""Exit codes and one-line errors, the same for every program."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable

from rich.console import Console
from rich.logging import RichHandler

from lco_jax.runtime.processes import LostProcessError

DONE, FAILED, USAGE = 0, 1, 2

log = logging.getLogger(__name__)


def program(main: Callable[[], int]) -> Callable[[], int]:
    """`main` with logging set up and errors turned into messages and exit codes.

    Errors of usage, configuration and data (`ValueError`, `FileNotFoundError`) exit with 2,
    failures of the run (`RuntimeError`, `OSError`) with 1. Anything else is a bug and keeps its
    traceback.
    """

    @functools.wraps(main)
    def wrapped() -> int:
        handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
        for name in ("jax", "httpx", "tensorboardX"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # orbax logs whole tracebacks of errors that it also raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        try:
            return main()
        except (ValueError, FileNotFoundError) as error:
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


def _say(error: Exception, code: int) -> int:
    log.debug("traceback of the error below", exc_info=error)
    sys.stderr.write(f"error: {error}\n")
    return code
