"""What says that a process writes somewhere: a file that it touches as long as it lives.

On file systems it is a lease of `filelock`, made exclusively. In a bucket it is an object, and
nothing is exclusive there: two processes that look within the same second may both see none. Each
looks again after it has written, and the one whose object was written over goes; only if that
second is longer than a write takes to be seen, both would stay.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from etils import epath
from filelock import LeaseCompromise, SoftFileLease, Timeout

log = logging.getLogger(__name__)

BEAT_S, PATIENCE_S = 10.0, 30.0
"""How often a lease is touched, and after how long without it others may take it over."""
SETTLE_S = 1.0
"""In which what is written to a bucket is seen by all."""


@dataclass(frozen=True)
class Holder:
    """A process, as messages name it."""

    host: str
    pid: int
    since: str
    started: str
    """When the process began, as its kernel counts."""
    kernel: str
    """Within which numbers of processes mean the same."""

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} (since {self.since})"

    @property
    def is_here(self) -> bool:
        """Whether this process would see it."""
        return self.kernel == _kernel()

    @property
    def is_alive(self) -> bool:
        """Of one that is here."""
        return _started(self.pid) == self.started


def me() -> Holder:
    """This process, from now on."""
    now = datetime.now(UTC).isoformat(" ", "seconds")
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, now, _started(pid), _kernel())


def _kernel() -> str:
    """The machine since its last start, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process began (empty: there is none, also if its parent has not noticed its end)."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return "alive"
    return ""


class Lease(Protocol):
    """A place that one process at a time can have."""

    def try_to_take(self) -> bool:
        """Whether this process has it now."""

    def holder(self) -> Holder | None:
        """Who has it, or had it when it died (None: nobody, or not known)."""

    def mark(self) -> Any:
        """What changes whenever the holder touches it (None: nobody has it)."""

    def release(self) -> None:
        """Give it back."""


class FileLease:
    """A lease on a file system, and a note beside it of who has it."""

    def __init__(self, file: Path):
        self._file, self._note = file, file.with_name(f"{file.name}.json")
        self._lease = SoftFileLease(
            file,
            lease_duration=PATIENCE_S,
            heartbeat_interval=BEAT_S,
            on_compromise=_on_compromise,
            thread_local=False,
        )

    def try_to_take(self) -> bool:
        """As of `Lease`."""
        try:
            self._lease.acquire(timeout=0)
        except Timeout:
            return False
        self._note.write_text(json.dumps(asdict(me())))
        return True

    def holder(self) -> Holder | None:
        """As of `Lease`."""
        return _holder(self._note) if self._file.exists() else None

    def mark(self) -> Any:
        """As of `Lease`."""
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def release(self) -> None:
        """As of `Lease`."""
        self._note.unlink(missing_ok=True)
        self._lease.release()


def _on_compromise(loss: LeaseCompromise) -> None:
    if loss.reason == "owner-changed":
        _end(loss.lock_file)
    log.warning("the lock %s is lost (%s): others may write there", loss.lock_file, loss.reason)


def _end(file: Any) -> None:
    """Two processes must not write to one place: the one that stood still goes."""
    log.error(
        "error: this process was suspended for more than %g s, and another one has taken %s: this "
        "one ends, and the other continues",
        *(PATIENCE_S, file),
    )
    logging.shutdown()
    os._exit(1)


class BucketLease:
    """A lease in a bucket."""

    def __init__(self, file: epath.Path):
        self._file, self._token, self._beats = file, uuid.uuid4().hex, 0
        self._seen: tuple[Any, float] = (None, 0.0)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def try_to_take(self) -> bool:
        """As of `Lease`."""
        if not self._is_free():
            return False
        self._about = asdict(me())
        self._write()
        time.sleep(SETTLE_S)
        if self._read().get("token") != self._token:
            return False
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()
        return True

    def _is_free(self) -> bool:
        holder, mark = self.holder(), self.mark()
        if mark is None:
            return True
        if holder is not None and holder.is_here:
            return not holder.is_alive
        if self._seen[0] != mark:
            self._seen = mark, time.monotonic()
        return time.monotonic() - self._seen[1] >= PATIENCE_S

    def holder(self) -> Holder | None:
        """As of `Lease`."""
        return _holder(self._file)

    def mark(self) -> Any:
        """As of `Lease`."""
        found = self._read()
        return (found.get("token"), found.get("beats")) if found else None

    def release(self) -> None:
        """As of `Lease`."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._read().get("token") == self._token:
            self._file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        return _read(self._file)

    def _write(self) -> None:
        self._beats += 1
        said = self._about | {"token": self._token, "beats": self._beats}
        self._file.write_text(json.dumps(said))

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                token = self._read().get("token")
                if token not in (None, self._token):
                    _end(self._file)
                self._write()
            except Exception as error:  # of the network, and of many classes; the next beat comes
                log.debug("%s: %s", self._file, error)


def _read(file: Any) -> dict[str, Any]:
    """What is in a note; nothing if it is not there, or half written."""
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _holder(note: Any) -> Holder | None:
    found = _read(note)
    names = [field.name for field in fields(Holder)]
    return Holder(**{name: found[name] for name in names}) if found.keys() >= set(names) else None
