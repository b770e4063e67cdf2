"""Features of media on disk: a frozen tower makes the same of the same file every time."""

import hashlib
import io
import os
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np

from lco_jax.data.encode.encoded import Kind, Known
from lco_jax.data.encode.positions import Grid
from lco_jax.data.media.images import load_image
from lco_jax.data.media.sources import (
    Adjusted,
    Frames,
    MediaSource,
    Pixels,
    Waveform,
    open_media,
)
from lco_jax.runtime.disks import writing

_CHUNK_BYTES = 2**20


class MediaCache(Protocol):
    """Media whose features are known."""

    def key(self, kind: Kind, source: MediaSource) -> str:
        """The name under which a medium would be known."""
        ...

    def load(self, key: str) -> tuple[Known, ...] | None:
        """The parts of a medium (None: it is not known)."""
        ...


class FeatureCache:
    """A folder with a file for each medium, named after its content.

    Args:
        folder: on a local or shared disk; made if it is not there.
        identity: what features depend on besides the medium: tower, dtype, sizes and rates.
        dtype: in which features are kept.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: str, dtype: str):
        self._folder, self._identity = Path(folder), identity
        self._dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        self._folder.mkdir(parents=True, exist_ok=True)

    def key(self, kind: Kind, source: MediaSource) -> str:
        """The name under which a medium is kept.

        Raises:
            MediaError: the file is missing or empty.
        """
        return content_hash(f"{self._identity} {kind} ", source)

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def load(self, key: str) -> tuple[Known, ...] | None:
        """The parts of a medium (None: it is not kept); a damaged file counts as none."""
        try:
            content = self._path(key).read_bytes()
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                count = len(arrays.files) // 2
                return tuple(
                    self._part(arrays[f"features{index}"], arrays[f"grid{index}"])
                    for index in range(count)
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, key: str, parts: Sequence[Known]) -> None:
        """Keep a medium; a killed process leaves nothing half written under its name."""
        arrays = {}
        for index, part in enumerate(parts):
            values = part.features.astype(self._dtype)
            arrays[f"features{index}"] = values.view(f"u{values.itemsize}")
            *sizes, times = part.grid or ((),)
            arrays[f"grid{index}"] = np.array([*sizes, *times], np.float64)
        path = self._path(key)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        with writing(path, sum(x.nbytes for x in arrays.values())):
            path.parent.mkdir(exist_ok=True)
            with draft.open("wb") as file:
                np.savez(file, **arrays)
            draft.replace(path)

    def _part(self, features: np.ndarray, grid: np.ndarray) -> Known:
        values = features.view(self._dtype).astype(np.float32)
        if not grid.size:
            return Known(values, None)
        sizes, (seconds, *times) = grid[:3].astype(int).tolist(), grid[3:].tolist()
        return Known(values, Grid(*sizes, seconds, tuple(times)))

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npz"


def content_hash(prefix: str, source: MediaSource, num_bytes: int = 20) -> str:
    """A name for the content of a medium: so many bytes, as hexadecimal digits.

    Raises:
        MediaError: the file is missing or empty.
    """
    digest = hashlib.blake2b(prefix.encode(), digest_size=num_bytes)
    for block in _blocks(source):
        digest.update(block)
    return digest.hexdigest()


def _blocks(source: MediaSource) -> Iterator[bytes]:
    """The bytes of a file, or of what is in memory with its sizes."""
    if isinstance(source, Adjusted):
        yield repr(source.options).encode()
        yield from _blocks(source.source)
    elif isinstance(source, Pixels):
        image = load_image(source)
        yield f"pixels {image.size} ".encode()
        yield image.tobytes()
    elif isinstance(source, Waveform):
        yield f"waveform {source.rate_hz} {len(source.samples)} ".encode()
        yield source.samples.tobytes()
    elif isinstance(source, Frames):
        yield f"frames {len(source.images)} {source.fps} ".encode()
        for image in source.images:
            yield from _blocks(image)
    else:
        with open_media(source) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
