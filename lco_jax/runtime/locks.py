"""One process writes to a folder or a file; a second one is told which is the first."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath

from lco_jax.runtime import processes
from lco_jax.runtime.disks import writing
from lco_jax.runtime.lease import PATIENCE_S, BucketLease, FileLease, Lease
from lco_jax.runtime.start import skip_absent_tpu

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class LockedError(RuntimeError):
    """Another process writes there."""


@contextlib.contextmanager
def only_writer(folder: str | os.PathLike) -> Iterator[None]:
    """A context in which this process, or those that it was joined with, alone write to a folder,
    which is made. Process 0 has the lock; it is given back also at signals, and what a killed
    process has left is taken over.

    Raises:
        LockedError: another process writes there; the message names host and process.
        DiskError: the disk has no room for the lock, or fails.
        OtherProcessError: the same, on the others that process 0 was joined with.
    """
    with _locked(epath.Path(folder), epath.Path(folder) / ".lock"):
        yield


@contextlib.contextmanager
def only_writer_of(output: str | os.PathLike) -> Iterator[None]:
    """The same for a file, or a folder that appears when it is complete: the lock is beside it."""
    output = epath.Path(output)
    with _locked(output, output.with_name(f".{output.name}.lock")):
        yield


@contextlib.contextmanager
def _locked(place: epath.Path, file: epath.Path) -> Iterator[None]:
    skip_absent_tpu()  # to be asked which process this is starts JAX, here first in many programs
    with contextlib.ExitStack() as stack:
        with processes.all_or_none(f"lock of {place}"):
            if jax.process_index() == 0:
                stack.enter_context(_held(place, file))
        yield


@contextlib.contextmanager
def _held(place: epath.Path, file: epath.Path) -> Iterator[None]:
    is_remote = "://" in str(file)
    is_new = not is_remote and not file.parent.exists()
    lease: Lease = BucketLease(file) if is_remote else FileLease(Path(file))
    with writing(place):
        if is_new:
            file.parent.mkdir(parents=True, exist_ok=True)
        take(lease, str(place))
    try:
        with _given_back_at_signals(lease):
            yield
    finally:
        lease.release()
        if is_new:
            with contextlib.suppress(OSError):  # unless something came of it
                Path(file.parent).rmdir()


def take(lease: Lease, place: str) -> None:
    """Take a lease that is free, or whose holder is dead.

    Raises:
        LockedError: its holder lives: it is on this machine, or has touched the lease since this
            process looks at it.
    """
    before, first = lease.holder(), None
    while not lease.try_to_take():
        holder, mark = lease.holder(), lease.mark()
        here = holder is not None and holder.is_here
        if here or (None not in (first, mark) and mark != first):
            raise LockedError(
                f"{place} is being written to by {holder or 'another process'}; wait until that is "
                f"done, or end it, or choose another place"
            )
        if first is None and mark is not None:
            first = mark
            log.warning(
                "%s is locked by %s; looking for up to %g s whether that is alive",
                *(place, holder or "another process", PATIENCE_S),
            )
        time.sleep(_LOOK_S)
    if before is not None:
        log.warning("%s: the lock of %s, which is gone, is taken over", place, before)


@contextlib.contextmanager
def _given_back_at_signals(lease: Lease) -> Iterator[None]:
    """A context in which signals that end the process give the lease back first. Those that
    somebody else handles, as JAX does among several processes, are left alone.
    """

    def end(number: int, _frame: Any) -> None:
        lease.release()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    own = []
    if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
        own = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in own:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in own:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)
