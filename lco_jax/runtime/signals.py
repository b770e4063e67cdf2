"""SIGINT and SIGTERM (preemption) as a request to save and stop."""

import logging
import os
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils

log = logging.getLogger(__name__)


class StopSignals:
    """A context in which the two signals wait for the end of the step."""

    def __init__(self):
        self._caught: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Among several processes JAX catches SIGTERM itself, to agree with the others on the
        # step after which all stop; a handler of ours would take the signal away from it.
        numbers = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        for number in numbers:
            self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def received(self, step: int) -> signal.Signals | None:
        """The signal, on all processes after the same step."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            return self._caught or signal.SIGTERM
        return self._caught if jax.process_count() == 1 else None

    def _catch(self, number: int, _frame: Any) -> None:
        self._caught = signal.Signals(number)
        log.warning("%s: saving after this step", self._caught.name)
        # A second signal ends the process at once.
        for caught, handler in self._before.items():
            signal.signal(caught, handler)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
