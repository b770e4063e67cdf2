"""Files that strangers name: opened only if they are files, which a FIFO or a device is not."""

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(file: Path) -> BinaryIO:
    """The file, opened to be read.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a folder, a FIFO (which would wait for its writer), a device or a socket.
    """
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError(f"{file} is no regular file")
    return open(file, "rb")


def check_length(stream: BinaryIO, num_bytes: int) -> None:
    """Raise ValueError if a file has become shorter than it was: what is mapped of it beyond its
    end would end the process."""
    found = os.fstat(stream.fileno()).st_size
    if found < num_bytes:
        raise ValueError(
            f"{stream.name}: had {num_bytes} bytes and now has {found}: something writes to it; "
            "fetch it again"
        )
