"""Where the time of a run goes: shares of the wall clock, and traces of chosen steps."""

import collections
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath

from lco_jax.runtime.disks import replace_bytes

log = logging.getLogger(__name__)

_PAUSES = ("checkpoint", "evaluation")


class Spending:
    """The wall time of a run since its start, by what it was spent on."""

    def __init__(self):
        self._start = time.perf_counter()
        self._first_step: float | None = None
        self._spent: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time within as spent on `checkpoint` or `evaluation`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(what, time.perf_counter() - start)

    def add(self, what: str, seconds: float) -> None:
        """Count seconds as spent on `input`, `checkpoint` or `evaluation`."""
        self._spent[what] += seconds

    @property
    def total_s(self) -> float:
        """In which no step could run: saving and evaluating."""
        return sum(self._spent[name] for name in _PAUSES)

    def scalars(self) -> dict[str, float]:
        """Totals in seconds after a step, and the goodput: the share of the time since the start
        that steps had for themselves. Start-up lasts until the first step is done, compiled."""
        now = time.perf_counter()
        if self._first_step is None:
            self._first_step = now
            self._before_first = dict(self._spent)
        before = sum(self._before_first.values())
        start_up = self._first_step - self._start - before
        lost = start_up + sum(self._spent.values())
        elapsed = now - self._start
        return {
            "startup_seconds": start_up,
            "input_seconds": self._spent["input"],
            "checkpoint_seconds": self._spent["checkpoint"],
            "evaluation_seconds": self._spent["evaluation"],
            "goodput": max(0.0, 1 - lost / elapsed),
        }


def trace_steps(
    batches: Iterable[tuple], steps: tuple[int, int] | None, workdir: str
) -> Iterator[Any]:
    """The same batches; while those of the given steps are worked on, xprof looks on.

    A batch starts with the index of its step, counted from 0; `steps` count from 1.
    """
    if steps is None:
        yield from batches
        return
    folder = epath.Path(workdir) / "profile"
    # The profiler writes local files only.
    local = tempfile.mkdtemp() if "://" in str(folder) else str(folder)
    tracing = False
    try:
        for batch in batches:
            step = batch[0] + 1
            if tracing and step > steps[1]:
                tracing = _stop(local, folder)
            if not tracing and steps[0] <= step <= steps[1]:
                jax.profiler.start_trace(local)
                tracing = True
            with jax.profiler.StepTraceAnnotation("step", step_num=step):
                yield batch
    finally:
        if tracing:
            _stop(local, folder)


def _stop(local: str, folder: epath.Path) -> bool:
    jax.profiler.stop_trace()
    if local != str(folder):
        for file in Path(local).rglob("*"):
            if file.is_file():
                target = folder / file.relative_to(local).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(target, file.read_bytes())
        shutil.rmtree(local)
    log.info("trace of the chosen steps: xprof --logdir %s", folder)
    return False
