"""Weights in the binary format of CTranslate2 models."""

import mmap
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

_VERSION = 6
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""By number; bfloat16 and packed formats are not read."""


def read_variables(file: Path) -> dict[str, Shaped[np.ndarray, "*shape"]]:
    """The arrays of a `model.bin` by name, mapped from the file; aliases are left out.

    Raises:
        ValueError: no such file, one of another version, a truncated one, or one with numbers of
            another kind.

    Source: CTranslate2 `ModelSpec._serialize`.
    """
    if not file.is_file() or not file.stat().st_size:
        raise ValueError(f"{file}: no such file, or an empty one; fetch it again")
    with file.open("rb") as stream:
        reader = _Reader(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _read(reader)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: no complete CTranslate2 model ({error}); fetch it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


class _Reader:
    """Little-endian values, one after the other."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.offset = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.offset)
        self.offset += struct.calcsize(kind)
        return value

    def text(self) -> str:
        start = self.offset + 2
        self.offset = start + self.number("H")
        return self.data[start : self.offset].rstrip(b"\0").decode()

    def array(self, dtype: type, shape: tuple[int, ...], num_bytes: int) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64))
        if size * np.dtype(dtype).itemsize != num_bytes:
            raise ValueError(f"an array of shape {shape} in {num_bytes} bytes; fetch it again")
        if self.offset + num_bytes > len(self.data):
            raise ValueError("truncated; fetch it again")
        values = np.frombuffer(self.data, dtype, size, self.offset)
        self.offset += num_bytes
        return values.reshape(shape)


def _read(reader: _Reader) -> dict[str, np.ndarray]:
    version = reader.number("I")
    if version != _VERSION:
        raise ValueError(f"format version {version}; expected {_VERSION}, convert the model again")
    reader.text()  # the kind of model
    reader.number("I")  # the revision of that kind
    variables = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = tuple(reader.number("I") for _ in range(reader.number("B")))
        dtype = reader.number("B")
        if dtype >= len(_DTYPES):
            raise ValueError(f"{name} has numbers of kind {dtype}; convert the model to float16")
        variables[name] = reader.array(_DTYPES[dtype], shape, reader.number("I"))
    return variables
