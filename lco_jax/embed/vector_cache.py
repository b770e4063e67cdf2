"""Vectors on disk, found by the content of their items: what stopped goes on where it was."""

import hashlib
import logging
import operator
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from filelock import FileLock
from jaxtyping import Bool, Float

from lco_jax.data.encode.feature_cache import content_hash
from lco_jax.data.errors import RecordError, belonging_to
from lco_jax.data.records import Item, MediaSource
from lco_jax.embed.encoder import Errors
from lco_jax.embed.input_errors import moved
from lco_jax.runtime.disks import read_into, writing

log = logging.getLogger(__name__)

_KEY_BYTES, _CHECK_BYTES = 16, 4
_ROW_BYTES = _KEY_BYTES + _CHECK_BYTES
_NO_FILES = ("data:", "file:", "http:", "https:")
"""Addresses that have no time of change to ask for."""
_PIECE = 1024
"""Items that are encoded between two times that vectors are written."""


class _Row(NamedTuple):
    """Where a vector is, and what it was when it was written."""

    number: int
    check: bytes


class VectorCache:
    """The vectors of one model in a folder of its own; several programs may write at a time.

    Keys and vectors are appended to two files, vectors first; with each key stands a checksum of it
    and its vector. What a killed program left of a row is cut off when the folder is opened again,
    and what is damaged counts as unknown.

    Args:
        folder: of the vectors of all models.
        model: all that a vector depends on besides its item (see `Embedder.revision`).
        width: of a vector.
    """

    def __init__(self, folder: str | Path, model: str, width: int):
        self.folder = Path(folder) / hashlib.blake2b(model.encode(), digest_size=8).hexdigest()
        self._width = width
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keys, self._vectors = self.folder / "keys.bin", self.folder / "vectors.bin"
        self._lock = FileLock(self.folder / "lock")
        self._media: dict[tuple[str, int, int], bytes] = {}
        with self._lock:
            self._cut_to_whole_rows()
            self._rows = dict(_read_rows(self._keys.read_bytes()))

    def __len__(self) -> int:
        return len(self._rows)

    def encode(
        self,
        encode: Callable[..., Float[np.ndarray, "N E"]],
        items: Sequence[Item],
        *,
        on_progress: Callable[[int], None] | None = None,
        errors: Errors | None = None,
    ) -> Float[np.ndarray, "N E"]:
        """As `Encoder.encode`, which is asked for those items only that are not here yet, each
        once; what it gives is kept piece by piece.

        Args:
            encode: that of an encoder.
        """
        keys = self.keys(items)
        vectors, known = self.read(keys)
        if on_progress:
            on_progress(int(known.sum()))
        places: dict[bytes | int, list[int]] = {}
        for index in np.flatnonzero(~known).tolist():
            # Without a key an item is a group of its own: the encoder says what is wrong with it.
            places.setdefault(keys[index] or index, []).append(index)
        groups = list(places.items())
        for start in range(0, len(groups), _PIECE):
            piece = groups[start : start + _PIECE]
            found: Errors = {}
            firsts = [own[0] for _, own in piece]
            with moved(firsts):
                made = encode(
                    [items[index] for index in firsts], errors=None if errors is None else found
                )
            for number, (_, own) in enumerate(piece):
                vectors[own] = made[number]
                if number in found:
                    errors.update(dict.fromkeys(own, found[number]))
            good = [
                number
                for number, (key, _) in enumerate(piece)
                if isinstance(key, bytes) and number not in found
            ]
            self.add([piece[number][0] for number in good], made[good])
            if on_progress:
                on_progress(sum(len(own) for _, own in piece))
        return vectors

    def keys(self, items: Sequence[Item]) -> list[bytes | None]:
        """Hashes of texts and of the contents of media; the id of an item does not count. None
        where a medium cannot be opened."""
        return [self._key(item) for item in items]

    def read(
        self, keys: Sequence[bytes | None]
    ) -> tuple[Float[np.ndarray, "N E"], Bool[np.ndarray, "N"]]:
        """The vectors of keys, and which of them are known; the others are zero."""
        known = np.array([key in self._rows for key in keys], bool)
        vectors = np.zeros((len(keys), self._width), np.float32)
        if known.any():
            places = np.flatnonzero(known).tolist()
            with self._vectors.open("rb", buffering=0) as file:
                for place in places:
                    row = memoryview(vectors[place]).cast("B")
                    read_into(file, row, self._rows[keys[place]].number * len(row))
            damaged = [
                place
                for place in places
                if _check(keys[place], vectors[place]) != self._rows[keys[place]].check
            ]
            if damaged:
                log.warning(
                    "%s is damaged: %d of its vectors are computed again",
                    *(self._vectors, len({keys[place] for place in damaged})),
                )
                known[damaged], vectors[damaged] = False, 0
                for place in damaged:
                    self._rows.pop(keys[place], None)
        return vectors, known

    def add(self, keys: Sequence[bytes], vectors: Float[np.ndarray, "N E"]) -> None:
        """Keep the vectors of different new keys."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        checks = [_check(key, vector) for key, vector in zip(keys, vectors, strict=True)]
        with self._lock:
            self._cut_to_whole_rows()
            start = self._keys.stat().st_size // _ROW_BYTES
            for file, content in (
                (self._vectors, vectors.tobytes()),
                (self._keys, b"".join(map(operator.add, keys, checks))),
            ):
                with writing(file, len(content)), file.open("ab") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
        for number, (key, check) in enumerate(zip(keys, checks, strict=True), start):
            self._rows[key] = _Row(number, check)

    def _cut_to_whole_rows(self) -> None:
        sizes = {self._keys: _ROW_BYTES, self._vectors: 4 * self._width}
        for file in sizes:
            file.touch()
        count = min(file.stat().st_size // size for file, size in sizes.items())
        for file, size in sizes.items():
            if file.stat().st_size != count * size:
                os.truncate(file, count * size)

    def _key(self, item: Item) -> bytes | None:
        digest = hashlib.blake2b(item.text.encode(), digest_size=_KEY_BYTES)
        try:
            with belonging_to("a medium"):
                for kind in ("images", "audios", "videos"):
                    for source in getattr(item, kind):
                        digest.update(b"\0" + kind.encode() + self._digest(source))
        except RecordError:  # which the encoder finds, too, and tells
            return None
        return digest.digest()

    def _digest(self, source: MediaSource) -> bytes:
        if not isinstance(source, str) or source.startswith(_NO_FILES):
            return bytes.fromhex(content_hash("", source, _KEY_BYTES))
        stat = epath.Path(source).stat()
        state = str(source), stat.length, stat.mtime
        if state not in self._media:
            self._media[state] = bytes.fromhex(content_hash("", source, _KEY_BYTES))
        return self._media[state]


def _read_rows(content: bytes) -> Iterator[tuple[bytes, _Row]]:
    """By key; what was damaged stands there once more, further on."""
    for number, start in enumerate(range(0, len(content), _ROW_BYTES)):
        middle = start + _KEY_BYTES
        yield content[start:middle], _Row(number, content[middle : start + _ROW_BYTES])


def _check(key: bytes, vector: Float[np.ndarray, "E"]) -> bytes:
    return zlib.crc32(vector, zlib.crc32(key)).to_bytes(_CHECK_BYTES, "little")
