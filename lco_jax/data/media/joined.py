"""Where recordings begin and end in Ogg and FLAC files, of which one may hold several, one after
another, as `cat a.ogg b.ogg` makes it."""

import io

_OGG_HEADER_BYTES = 27
_OGG_PAGE_BYTES = 2**16
"""No page is longer."""
_IS_FIRST, _IS_LAST = 2, 4
"""Bits of an Ogg page that is the first or the last of its stream."""
_FLAC = b'fLaC\0\0\0"'
_FLAC_LAST = b'fLaC\x80\0\0"'
"""The beginning of a FLAC stream: its mark, and the header of 34 bytes that must follow."""
_BLOCK_BYTES = 1 << 20


def are_joined(file: io.BufferedIOBase) -> bool:
    """Whether another recording follows the first in an Ogg or FLAC file."""
    file.seek(0)
    start = file.read(4)
    if start == b"OggS":
        return _is_chained(file)
    return start == b"fLaC" and _has_other(file)


def lacks_last_page(file: io.BufferedIOBase) -> bool:
    """Whether an Ogg file does not end with the whole of a page that ends a stream."""
    file.seek(max(file.seek(0, io.SEEK_END) - 2 * _OGG_PAGE_BYTES, 0))
    end = file.read()
    page = end[end.rfind(b"OggS") :]
    if len(page) < _OGG_HEADER_BYTES or not page[5] & _IS_LAST:
        return True
    content = _OGG_HEADER_BYTES + page[26]
    return len(page) < content + sum(page[_OGG_HEADER_BYTES:content])


def _is_chained(file: io.BufferedIOBase) -> bool:
    """Streams that play together begin together, before any other page."""
    size, place, others = file.seek(0, io.SEEK_END), 0, False
    while place + _OGG_HEADER_BYTES <= size:
        file.seek(place)
        header = file.read(_OGG_HEADER_BYTES)
        if header[:4] != b"OggS":  # damaged, which decoders tell
            return False
        lengths = file.read(header[26])
        if header[5] & _IS_FIRST and others:
            return True
        others |= not header[5] & _IS_FIRST
        place += _OGG_HEADER_BYTES + len(lengths) + sum(lengths)
    return False


def _has_other(file: io.BufferedIOBase) -> bool:
    """Whether a mark follows that of the beginning, which has been read."""
    before = b""
    while block := file.read(_BLOCK_BYTES):
        block = before + block
        if _FLAC in block or _FLAC_LAST in block:
            return True
        before = block[-len(_FLAC) :]
    return False
