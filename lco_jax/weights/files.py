"""Safetensors files and folders of them, of which any part can be read.

Source: the safetensors format (8 bytes of header length, a JSON header, the tensors' bytes).
"""

import math
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, BinaryIO, Literal

import ml_dtypes
import numpy as np
from jaxtyping import Shaped, UInt8
from pydantic import Field

from lco_jax.models.json_files import Schema, check, parse, read_object
from lco_jax.runtime.disks import read_into
from lco_jax.runtime.regular_files import open_regular

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_MAX_HEADER_BYTES = 16 << 20
"""A hundred times what the largest public files take; the reference implementation reads more."""
_MAX_VALUES = 1 << 48
"""Of a tensor, dimensions of 0 left out: more than any file has, less than overflows."""

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""By the name in a header."""


class _Entry(Schema):
    """A tensor in a header."""

    dtype: Literal[tuple(DTYPES)]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=16)]
    data_offsets: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class _Index(Schema):
    """What says which file a tensor is in."""

    weight_map: Annotated[dict[str, str], Field(min_length=1)]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


Pick = Callable[[Shaped[np.ndarray, "..."]], Shaped[np.ndarray, "..."]]
"""Takes a part of a tensor, or orders it otherwise; a view, whose values are not looked at."""
Allocate = Callable[[int], UInt8[np.ndarray, "n"]]
"""Memory of so many bytes."""


def _new_memory(num_bytes: int) -> UInt8[np.ndarray, "n"]:
    return np.empty(num_bytes, np.uint8)


class SafetensorsFile:
    """One safetensors file; a tensor's bytes are read when it is asked for."""

    def __init__(self, path: Path):
        """Read and check the header.

        Raises:
            ValueError: the file is truncated, corrupt, or holds an unknown dtype.
        """
        self.path = Path(path)
        self._file = open_regular(self.path, buffering=0)
        weakref.finalize(self, self._file.close)
        header, data_start = _read_header(self._file, self.path)
        # For addresses only: whoever touches mapped bytes that are gone meanwhile dies.
        self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self.specs: dict[str, TensorSpec] = {}
        self._offsets: dict[str, int] = {}
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
            spec = TensorSpec(tuple(entry.shape), DTYPES[entry.dtype])
            first, last = entry.data_offsets
            if first != end or last - first != spec.num_bytes:
                raise ValueError(
                    f"{self.path}: tensor {name!r} of {spec.num_bytes} bytes is expected at bytes "
                    f"{end} to {end + spec.num_bytes}, the header says {first} to {last}; "
                    "the file is corrupt, fetch it again"
                )
            self.specs[name], self._offsets[name], end = spec, data_start + first, last
        if data_start + end != len(self._bytes):
            raise ValueError(
                f"{self.path}: expected {data_start + end} bytes by its header, found "
                f"{len(self._bytes)}; the file is truncated or corrupt, fetch it again"
            )

    def view(self, name: str) -> Shaped[np.ndarray, "..."]:
        """A tensor's values, read-only."""
        (values,) = self.read(name, [lambda whole: whole])
        values.flags.writeable = False
        return values

    def read(
        self, name: str, picks: Sequence[Pick], allocate: Allocate = _new_memory
    ) -> list[Shaped[np.ndarray, "..."]]:
        """Parts of a tensor; the bytes from the first of them to the last are read once.

        Raises:
            ShrunkError, DiskError: they are not there any more, or the disk fails.
        """
        spec = self.specs[name]
        whole = np.ndarray(spec.shape, spec.dtype, self._bytes, self._offsets[name])
        parts = [pick(whole) for pick in picks]
        bounds = [np.lib.array_utils.byte_bounds(part) for part in parts if part.size]
        first = min((low for low, _ in bounds), default=0)
        values = allocate(max((high for _, high in bounds), default=0) - first)
        before = first - np.lib.array_utils.byte_bounds(whole)[0]
        read_into(self._file, memoryview(values), self._offsets[name] + before)
        starts = [part.__array_interface__["data"][0] - first for part in parts]
        return [
            np.ndarray(part.shape, part.dtype, values, start if part.size else 0, part.strides)
            for part, start in zip(parts, starts, strict=True)
        ]


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, _Entry], int]:
    file_bytes = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    if len(prefix) < 8:
        raise ValueError(f"{path}: expected at least 8 bytes, found {file_bytes}; fetch it again")
    (header_bytes,) = struct.unpack("<Q", prefix)
    if header_bytes > _MAX_HEADER_BYTES:
        raise ValueError(
            f"{path}: header of {header_bytes} bytes, at most {_MAX_HEADER_BYTES} are expected; "
            "the file is corrupt or no safetensors file"
        )
    if 8 + header_bytes > file_bytes:
        raise ValueError(
            f"{path}: expected a header of {header_bytes} bytes, found {file_bytes - 8}; "
            "the file is truncated, fetch it again"
        )
    where = f"{path}: the header"
    try:
        text = file.read(header_bytes).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no UTF-8 at byte {error.start}; fetch it again") from error
    header = parse(text, where)
    if not isinstance(header, dict):
        raise ValueError(f"{where} is no safetensors header, which is an object ({{...}})")
    header.pop("__metadata__", None)
    entries = {
        name: check(_Entry, entry, f"{where}: tensor {name!r}") for name, entry in header.items()
    }
    for name, entry in entries.items():
        if math.prod(max(size, 1) for size in entry.shape) > _MAX_VALUES:
            raise ValueError(f"{where}: tensor {name!r} has the shape {entry.shape}")
    return entries, 8 + header_bytes


class SafetensorsFolder:
    """All tensors of a hub folder, in one file or in shards with an index."""

    def __init__(self, folder: Path):
        """Read and check the headers of all files.

        Raises:
            FileNotFoundError: no safetensors weights, or a shard of the index is missing.
            ValueError: a file is damaged, or index and files disagree.
        """
        self.folder = Path(folder)
        self._files: dict[str, SafetensorsFile] = {}
        if (self.folder / SINGLE_NAME).exists():
            file = SafetensorsFile(self.folder / SINGLE_NAME)
            self._files = dict.fromkeys(file.specs, file)
        elif (self.folder / INDEX_NAME).exists():
            self._open_shards()
        else:
            raise FileNotFoundError(_no_weights_message(self.folder))

    def _open_shards(self) -> None:
        index = self.folder / INDEX_NAME
        weight_map = check(_Index, read_object(index), index).weight_map
        shards = sorted(set(weight_map.values()))
        for shard in shards:
            _check_inside(self.folder, shard)
        absent = [shard for shard in shards if not (self.folder / shard).exists()]
        if absent:
            raise FileNotFoundError(
                f"{self.folder}: {INDEX_NAME} names {len(shards)} files, {len(absent)} are "
                f"missing: {', '.join(absent[:10])}; fetch them"
            )
        for shard in shards:
            file = SafetensorsFile(self.folder / shard)
            indexed = {name for name, place in weight_map.items() if place == shard}
            if indexed != file.specs.keys():
                raise ValueError(
                    f"{file.path} and {INDEX_NAME} disagree: only in the index "
                    f"{sorted(indexed - file.specs.keys())[:10]}, only in the file "
                    f"{sorted(file.specs.keys() - indexed)[:10]}; fetch both again"
                )
            self._files |= dict.fromkeys(file.specs, file)

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """Shape and dtype by tensor name, in the order of the files."""
        return {name: file.specs[name] for name, file in self._files.items()}

    @property
    def paths(self) -> list[Path]:
        """Of the files."""
        return sorted({file.path for file in self._files.values()})

    def view(self, name: str) -> Shaped[np.ndarray, "..."]:
        """A tensor's values, read-only."""
        return self._files[name].view(name)

    def read(
        self, name: str, picks: Sequence[Pick], allocate: Allocate = _new_memory
    ) -> list[Shaped[np.ndarray, "..."]]:
        """Parts of a tensor, as `SafetensorsFile.read`."""
        return self._files[name].read(name, picks, allocate)

    def file(self, name: str) -> Path:
        """Where a tensor is."""
        return self._files[name].path


def _check_inside(folder: Path, name: str) -> None:
    """Raise ValueError if a file that the index names is elsewhere: strangers could have it read.

    In the cache of the hub, files are links to its blobs.
    """
    place = PurePath(name)
    root = folder.resolve()
    homes = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    inside = not place.is_absolute() and ".." not in place.parts and "\0" not in name
    real = (folder / name).resolve() if inside else None
    if real is None or not any(real.is_relative_to(home) for home in homes):
        raise ValueError(
            f"{folder / INDEX_NAME}: weight_map names the file {name!r}, which is not in the "
            "folder; copy it there"
        )


def _no_weights_message(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt")):
        return (
            f"{folder} holds its weights as pickles, which can run code when they are read; "
            "convert them to safetensors (load and save_pretrained with transformers)"
        )
    return f"{folder} holds neither {SINGLE_NAME} nor {INDEX_NAME}"
