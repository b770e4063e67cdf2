"""Digests of the contents of files, which are read once: what was found is kept by the file's
state (size, times of change, inode), so that the second time costs nothing."""

import contextlib
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lco_jax.weights.files import SafetensorsFolder

FOLDER = "~/.cache/lco_jax/digests"
"""Where digests are kept; may be deleted. Where it cannot be written to, nothing is kept."""

_BLOCK_BYTES = 64 * 2**20
"""That one thread reads at a time."""
_READ_BYTES = 4 * 2**20
_KEPT_FROM_BYTES = 2**20
"""Smaller files are read each time."""
_SETTLED_S = 2.0
"""A file that has changed since may change again at what is the same time for its file system."""
_THREADS = min(16, os.cpu_count() or 1)

State = tuple[int, ...]


def state_of(path: Path) -> State:
    """What changes when the content of a file does: device, inode, size, and the times of change of
    content and of inode, in nanoseconds. The last one cannot be set back.
    """
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def file_digest(path: Path) -> str:
    """A hash of what is in a file."""
    path = Path(os.path.realpath(path))
    if os.stat(path).st_size < _KEPT_FROM_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return _remembered(str(path), [path], lambda: _hash_file(path))


def tensors_digest(source: SafetensorsFolder, names: Iterable[str]) -> str:
    """A hash of some tensors of a folder, with their names, shapes and types: the same in every
    folder that has them, however it divides them among files.
    """
    names = sorted(names)
    chosen = hashlib.sha256("\n".join(names).encode()).hexdigest()
    key = f"{os.path.realpath(source.folder)} {chosen}"
    return _remembered(key, source.paths, lambda: _hash_tensors(source, names))


def _hash_file(path: Path) -> str:
    size = os.stat(path).st_size

    def block(start: int) -> bytes:
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            left = min(_BLOCK_BYTES, size - start)
            while left and (content := file.read(min(_READ_BYTES, left))):
                digest.update(content)
                left -= len(content)
        return digest.digest()

    with ThreadPoolExecutor(_THREADS) as pool:
        blocks = b"".join(pool.map(block, range(0, size, _BLOCK_BYTES)))
    return hashlib.sha256(f"{size} ".encode() + blocks).hexdigest()


def _hash_tensors(source: SafetensorsFolder, names: Sequence[str]) -> str:
    def one(name: str) -> bytes:
        values = source.view(name).reshape(-1).view("u1")
        return f"{name} {source.specs[name]} {hashlib.sha256(values).hexdigest()}\n".encode()

    with ThreadPoolExecutor(_THREADS) as pool:
        return hashlib.sha256(b"".join(pool.map(one, names))).hexdigest()


def _remembered(key: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """What `compute` finds in files, or found when they were as they are."""
    folder = Path(os.path.expanduser(FOLDER))
    note = folder / hashlib.sha256(key.encode()).hexdigest()[:32]
    states = [state_of(file) for file in files]
    known = re.fullmatch(r"(.*) ([0-9a-f]{64})\n", _text(note))
    if known and known[1] == repr(states):
        return known[2]
    now_ns = time.time_ns()
    found = compute()
    newest_ns = max(max(state[-2:]) for state in states)
    settled = newest_ns < now_ns - _SETTLED_S * 1e9
    if settled and states == [state_of(file) for file in files]:
        _keep(note, f"{states!r} {found}\n")
    return found


def _text(note: Path) -> str:
    try:
        return note.read_text()
    except (OSError, ValueError):
        return ""


def _keep(note: Path, text: str) -> None:
    draft = note.with_name(f"{note.name}.{uuid.uuid4().hex}.tmp")
    if not note.is_absolute():  # nobody's home
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.replace(note)
    except OSError:  # a full disk, or a home that is not writable
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
