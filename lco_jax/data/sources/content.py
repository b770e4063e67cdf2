"""The bytes of data files: mapped, fetched or unpacked, so that any part can be read."""

import contextlib
import gzip
import hashlib
import mmap
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from etils import epath

Content = mmap.mmap | bytes
_COPIED_BYTES = 1 << 20


def open_content(path: str) -> Content:
    """The bytes of a file: mapped if it is local, fetched as a whole if remote, and unpacked if its
    name ends in `.gz`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no gzip file, or a truncated one.
    """
    location = epath.Path(path)
    if not location.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.endswith(".gz"):
        with _errors_of_gzip(path), location.open("rb") as packed, gzip.open(packed) as file:
            return keep(lambda copy: shutil.copyfileobj(file, copy, _COPIED_BYTES))
    if "://" in path:
        return location.read_bytes()
    with open(location, "rb") as file:
        return _mapped(file)


def keep(write: Callable[[IO[bytes]], object]) -> Content:
    """What `write` writes into a nameless file on the disk, mapped."""
    with tempfile.TemporaryFile(prefix="lco_jax_") as copy:
        write(copy)
        copy.flush()
        return _mapped(copy)


def digest_of(content: Content, stop: int) -> str:
    """Hash of the first `stop` bytes."""
    with memoryview(content) as data, data[:stop] as used:
        return hashlib.blake2b(used, digest_size=8).hexdigest()


def _mapped(file: IO[bytes]) -> Content:
    if not os.fstat(file.fileno()).st_size:  # an empty file cannot be mapped
        return b""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextlib.contextmanager
def _errors_of_gzip(path: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked as gzip: {error}; write it again") from error
