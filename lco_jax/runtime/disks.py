"""Files on disks that are full or fail, or that change: errors name the file and the bytes."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from etils import epath

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENXIO, errno.ESTALE)
_WORDS = re.compile(
    r"no space left|quota exceeded|file too large|input/output error|RESOURCE_EXHAUSTED|"
    r"os error (28|122|27|5)\b|\d+ requested and \d+ written",
    re.IGNORECASE,
)
"""What errors of such disks say, of libraries that give no number."""


class DiskError(OSError):
    """A file could not be written or read; the message names it, and the bytes that it takes and
    that are free."""


def is_of_disk(error: BaseException) -> bool:
    """Whether a full or failing disk is what an error is about."""
    return getattr(error, "errno", None) in _NUMBERS or bool(_WORDS.search(str(error)))


class ShrunkError(OSError):
    """A file became shorter while it was in use. Of one that is mapped into memory a process would
    die of that, so that files are read.
    """


def read_into(file: IO[bytes], buffer: memoryview, start: int) -> None:
    """Fill a buffer with the bytes of an open file from `start` on; any thread may.

    Raises:
        ShrunkError: they are not there any more.
        DiskError: the disk fails.
    """
    filled = 0
    while filled < len(buffer):
        try:
            count = os.preadv(file.fileno(), [buffer[filled:]], start + filled)
        except OSError as error:
            raise DiskError(f"cannot read {file.name}: {error.strerror}") from error
        if not count:
            raise ShrunkError(
                f"{file.name} became shorter while it was in use: bytes {start:,} to "
                f"{start + len(buffer):,} are needed, {os.fstat(file.fileno()).st_size:,} are "
                "left; write it again and start again"
            )
        filled += count


@contextlib.contextmanager
def writing(path: os.PathLike | str, num_bytes: int | None = None) -> Iterator[None]:
    """A context in which a file, or the files of a folder, are written.

    Args:
        num_bytes: how many bytes are written (None: not known).

    Raises:
        DiskError: the disk is full or fails. Other errors stay as they are.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:  # of safetensors, pyarrow and tensorstore, too
        if not is_of_disk(error):
            raise
        found = DiskError(f"cannot write {path}: {room(error, path, num_bytes)}")
        found.errno = getattr(error, "errno", None)
        raise found from error


def room(error: BaseException, path: os.PathLike | str, num_bytes: int | None) -> str:
    """What a disk says, how many bytes are needed and free there, and what to do."""
    number = getattr(error, "errno", None)
    said = os.strerror(number) if number else next(iter(str(error).splitlines()), "")[:200]
    needed = "" if num_bytes is None else f"{num_bytes:,} bytes are needed, "
    free = free_bytes(path)
    has = "" if free is None else f"{free:,} bytes are free, "
    return f"{said}; {needed}{has}make room there or choose another place, and start again"


def free_bytes(path: os.PathLike | str) -> int | None:
    """How many bytes are free where a file is, or would be (None: not known, as in a bucket)."""
    if "://" in str(path):
        return None
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        stat = os.statvfs(place)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize


def replace_bytes(path: os.PathLike | str, content: bytes) -> None:
    """Write a file that appears, or takes the place of the one before, when it is complete.

    Raises:
        DiskError: the disk is full or fails; what was there before is as it was.
    """
    path = epath.Path(path)
    draft = path.with_name(path.name + ".tmp")
    with writing(path, len(content)):
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                if "://" not in str(path):
                    os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def replace_text(path: os.PathLike | str, text: str) -> None:
    """`replace_bytes` in UTF-8."""
    replace_bytes(path, text.encode())
