"""The bytes of data files, local, fetched or unpacked, of which any part can be read."""

import contextlib
import gzip
import hashlib
import mmap
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from etils import epath

from lco_jax.runtime.disks import read_into, writing
from lco_jax.runtime.regular_files import NotRegularFileError, check_regular, open_regular

_COPIED_BYTES = 1 << 20


class FileBytes:
    """The bytes that a local file had when it was opened, read when they are asked for. Any number
    of threads may ask. The file is closed when nobody can.

    Whoever asks gets ShrunkError where the file has become shorter, and DiskError where the disk
    fails.
    """

    def __init__(self, file: IO[bytes]):
        self.path: str = file.name
        self._file = file
        weakref.finalize(self, file.close)
        self._size = os.fstat(file.fileno()).st_size
        self._block = 0, b""  # where it starts, and what was looked through last

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        first, block = self._block
        if first <= start and stop <= first + len(block):
            return block[start - first : stop - first]
        return self._read(start, stop)

    def find(self, sign: bytes, start: int) -> int:
        """Where a byte is next (-1: nowhere)."""
        while start < self._size:
            first, block = self._block
            if not first <= start < first + len(block):
                first = start
                block = self._read(start, min(start + _COPIED_BYTES, self._size))
                self._block = first, block
            place = block.find(sign, start - first)
            if place >= 0:
                return first + place
            start = first + len(block)
        return -1

    def _read(self, start: int, stop: int) -> bytes:
        with contextlib.suppress(OSError):  # in one piece, as nearly always
            content = os.pread(self._file.fileno(), max(stop - start, 0), start)
            if len(content) == max(stop - start, 0):
                return content
        content = bytearray(max(stop - start, 0))
        read_into(self._file, memoryview(content), start)
        return bytes(content)


Content = FileBytes | mmap.mmap | bytes
"""Mapped is only what nobody else can shorten."""


def open_content(path: str) -> Content:
    """The bytes of a file: read when they are asked for if it is local, fetched as a whole if
    remote, and unpacked if its name ends in `.gz`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, a named pipe or the like, no gzip file, or a truncated one.
    """
    try:
        check_regular(path)
    except NotRegularFileError as error:
        raise ValueError(str(error)) from error
    location = epath.Path(path)
    if not location.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.endswith(".gz"):
        with _errors_of_gzip(path), open_regular(path) as packed, gzip.open(packed) as file:
            return keep(lambda copy: shutil.copyfileobj(file, copy, _COPIED_BYTES))
    if "://" in path:
        return location.read_bytes()
    return FileBytes(open_regular(os.fspath(location), buffering=0))


def keep(write: Callable[[IO[bytes]], object]) -> Content:
    """What `write` writes into a nameless file on the disk, mapped."""
    with writing(tempfile.gettempdir()), tempfile.TemporaryFile(prefix="lco_jax_") as copy:
        write(copy)
        copy.flush()
        if not copy.tell():  # an empty file cannot be mapped
            return b""
        return mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)


def digest_of(content: Content, stop: int) -> str:
    """Hash of the first `stop` bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for start in range(0, stop, _COPIED_BYTES):
        digest.update(content[start : min(start + _COPIED_BYTES, stop)])
    return digest.hexdigest()


@contextlib.contextmanager
def _errors_of_gzip(path: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked as gzip: {error}; write it again") from error
