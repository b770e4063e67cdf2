"""Vectors on disk, found by the content of their items: what stopped goes on where it was."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from etils import epath
from filelock import FileLock
from jaxtyping import Bool, Float

from lco_jax.data.encode.feature_cache import content_hash
from lco_jax.data.media.errors import MediaError
from lco_jax.data.records import Item, MediaSource
from lco_jax.embed.encoder import Errors
from lco_jax.embed.input_errors import moved
from lco_jax.runtime.disks import read_into, writing

_KEY_BYTES = 16
_NO_FILES = ("data:", "file:", "http:", "https:")
"""Addresses that have no time of change to ask for."""
_PIECE = 1024
"""Items that are encoded between two times that vectors are written."""


class VectorCache:
    """The vectors of one model in a folder of its own; several programs may write at a time.

    Keys and vectors are appended to two files, vectors first. What a killed program left of a row
    is cut off when the folder is opened again.

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
            self._rows = dict(_pieces(self._keys.read_bytes()))

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
            with self._vectors.open("rb", buffering=0) as file:
                for index in np.flatnonzero(known).tolist():
                    row = memoryview(vectors[index]).cast("B")
                    read_into(file, row, self._rows[keys[index]] * len(row))
        return vectors, known

    def add(self, keys: Sequence[bytes], vectors: Float[np.ndarray, "N E"]) -> None:
        """Keep the vectors of different new keys."""
        with self._lock:
            self._cut_to_whole_rows()
            start = self._keys.stat().st_size // _KEY_BYTES
            for file, content in (
                (self._vectors, np.ascontiguousarray(vectors, np.float32).tobytes()),
                (self._keys, b"".join(keys)),
            ):
                with writing(file, len(content)), file.open("ab") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
        self._rows |= {key: start + index for index, key in enumerate(keys)}

    def _cut_to_whole_rows(self) -> None:
        sizes = {self._keys: _KEY_BYTES, self._vectors: 4 * self._width}
        for file in sizes:
            file.touch()
        count = min(file.stat().st_size // size for file, size in sizes.items())
        for file, size in sizes.items():
            if file.stat().st_size != count * size:
                os.truncate(file, count * size)

    def _key(self, item: Item) -> bytes | None:
        digest = hashlib.blake2b(item.text.encode(), digest_size=_KEY_BYTES)
        try:
            for kind in ("images", "audios", "videos"):
                for source in getattr(item, kind):
                    digest.update(b"\0" + kind.encode() + self._digest(source))
        except (OSError, MediaError):
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


def _pieces(keys: bytes) -> Iterator[tuple[bytes, int]]:
    for row, start in enumerate(range(0, len(keys), _KEY_BYTES)):
        yield keys[start : start + _KEY_BYTES], row
