"""Safetensors files, written tensor by tensor.

Source: the safetensors format (see `lco_jax.weights.files`).
"""

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lco_jax.runtime.disks import writing
from lco_jax.weights.files import DTYPES, INDEX_NAME, SINGLE_NAME, TensorSpec

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class SafetensorsWriter:
    """Writes tensors of known shapes, in any order and from any thread, into a folder.

    A context manager: the files appear under their names when it ends without an error; until
    then, and after an error, the folder holds no weights.
    """

    def __init__(self, folder: Path, specs: Mapping[str, TensorSpec], *, max_shard_bytes: int):
        """Lay out the files, each of at most `max_shard_bytes` (or of one larger tensor).

        Raises:
            FileExistsError: the folder already holds weights.
            OSError: the disk has too little space.
        """
        self.folder = Path(folder)
        taken = [path.name for path in self.folder.glob("*.safetensors*")]
        if taken:
            raise FileExistsError(
                f"{self.folder} already holds {', '.join(sorted(taken)[:3])}; "
                "remove them or write to another folder"
            )
        self._specs = dict(specs)
        self._missing = set(specs)
        self._total_bytes = sum(spec.num_bytes for spec in specs.values())
        free_bytes = shutil.disk_usage(self.folder).free
        if self._total_bytes > free_bytes:
            raise OSError(
                f"{self.folder}: {self._total_bytes} bytes of weights do not fit into the "
                f"{free_bytes} bytes that are free; free some space or write elsewhere"
            )
        shards = _split(self._specs, max_shard_bytes)
        total = len(shards)
        self._names = [f"model-{n:05}-of-{total:05}.safetensors" for n in range(1, total + 1)]
        if total == 1:
            self._names = [SINGLE_NAME]
        self._shards = shards
        self._places: dict[str, tuple[int, int]] = {}
        self._files: list[int] = []

    def __enter__(self) -> "SafetensorsWriter":
        try:
            with writing(self.folder, self._total_bytes):
                for name, shard in zip(self._names, self._shards, strict=True):
                    self._begin(name, shard)
        except BaseException:
            self._discard()
            raise
        return self

    def _begin(self, name: str, shard: list[str]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = os.open(self._temporary(name), flags, 0o644)
        self._files.append(file)
        header, offsets = _header({tensor: self._specs[tensor] for tensor in shard})
        self._places |= {tensor: (file, offset) for tensor, offset in offsets.items()}
        _write_at(file, header, 0)

    def write(self, name: str, array: Shaped[np.ndarray, "..."]) -> None:
        """Write one tensor.

        Raises:
            ValueError: shape or dtype is not the announced one.
            DiskError: the disk is full or fails; the folder is left without weights.
        """
        spec = self._specs[name]
        if (array.shape, array.dtype) != (spec.shape, spec.dtype):
            raise ValueError(
                f"tensor {name!r} has shape {array.shape} and dtype {array.dtype}, "
                f"announced were {spec.shape} and {spec.dtype}"
            )
        file, offset = self._places[name]
        with writing(self.folder, self._total_bytes):
            _write_at(file, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, offset)
        self._missing.discard(name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            with writing(self.folder, self._total_bytes):
                self._finish()
        except BaseException:
            self._discard()
            raise

    def _finish(self) -> None:
        if self._missing:
            missing = sorted(self._missing)
            raise ValueError(f"{len(missing)} tensors were not written: {missing[:10]}")
        for file in self._files:
            os.fsync(file)
        for name in self._names:
            self._temporary(name).rename(self.folder / name)
        if len(self._names) > 1:
            self._write_index()
        while self._files:
            os.close(self._files.pop())

    def _write_index(self) -> None:
        weight_map = {
            tensor: name
            for name, shard in zip(self._names, self._shards, strict=True)
            for tensor in shard
        }
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
        temporary = self._temporary(INDEX_NAME)
        temporary.write_text(json.dumps(index, indent=2) + "\n")
        temporary.rename(self.folder / INDEX_NAME)

    def _discard(self) -> None:
        while self._files:
            os.close(self._files.pop())
        for name in (*self._names, INDEX_NAME):
            self._temporary(name).unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        return self.folder / f".{name}.partial"


def _split(specs: Mapping[str, TensorSpec], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, spec in specs.items():
        if shards[-1] and filled + spec.num_bytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += spec.num_bytes
    # Wide dtypes first, so that every tensor of a file is aligned to its own dtype.
    return [sorted(shard, key=lambda name: -specs[name].dtype.itemsize) for shard in shards]


def _header(specs: Mapping[str, TensorSpec]) -> tuple[bytes, dict[str, int]]:
    """The header of a file, and where in the file each tensor begins."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, spec in specs.items():
        entries[name] = {
            "dtype": _DTYPE_NAMES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": (end, end + spec.num_bytes),
        }
        end += spec.num_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    offsets = {name: start + entries[name]["data_offsets"][0] for name in specs}
    return struct.pack("<Q", len(text)) + text, offsets


def _write_at(file: int, data: Any, offset: int) -> None:
    # One call writes at most 2 GiB.
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
