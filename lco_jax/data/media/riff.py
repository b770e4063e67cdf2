"""What the headers of AVI and WAV files promise."""

import io
import struct

_HEADER_BYTES = 8
UNKNOWN_BYTES = 0x7FFF0000
"""From here on a declared size means that the writer could not know it."""


def lacks_bytes(file: io.BufferedIOBase) -> bool:
    """Whether a RIFF file ends before the last of its outermost parts does; no other file does."""
    size, start = file.seek(0, io.SEEK_END), 0
    while start + _HEADER_BYTES <= size:
        file.seek(start)
        kind, length = struct.unpack("<4sI", file.read(_HEADER_BYTES))
        if kind != b"RIFF" or not 0 < length < UNKNOWN_BYTES:
            return False
        start += _HEADER_BYTES + length
    return start > size
