"""Files that are opened for reading: regular ones only, as others can wait for ever."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from etils import epath

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularFileError(OSError):
    """What has the name of a file and is none."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file, local or remote, open for reading its bytes; nothing else is waited for.

    Raises:
        FileNotFoundError: there is none.
        NotRegularFileError: it is a folder, a named pipe, a socket or a device.
        OSError: it cannot be opened.
    """
    if "://" in os.fspath(path):
        return epath.Path(path).open("rb")
    _check(path, os.stat(path).st_mode)  # before it is opened, which some devices would notice
    # A pipe that has taken its place meanwhile is opened without a wait for who writes into it.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(path, os.fstat(file).st_mode)
        return open(file, "rb")
    except BaseException:
        os.close(file)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is there and is no regular file; remote files pass, and absent ones.

    Raises:
        NotRegularFileError: it is a named pipe, a socket, a device or a folder.
    """
    if "://" in os.fspath(path) or not Path(path).exists():
        return
    _check(path, os.stat(path).st_mode)


def _check(path: str | os.PathLike[str], mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
    raise NotRegularFileError(
        f"{os.fspath(path)}: is {kind}, and only regular files are read; copy its content into one"
    )
