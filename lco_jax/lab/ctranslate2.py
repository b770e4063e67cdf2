"""Weights in the binary format of CTranslate2 models."""

import math
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lco_jax.runtime.regular_files import read_regular
from lco_jax.weights.finite import count_not_finite

_VERSION = 6
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""By number; bfloat16 and packed formats are not read."""
_MAX_DIMENSIONS = 8


def read_variables(file: Path) -> dict[str, Shaped[np.ndarray, "*shape"]]:
    """The arrays of a `model.bin` by name, read-only; aliases are left out.

    Raises:
        ValueError: no such file, one of another version, a truncated one, or one with numbers of
            another kind, with NaN, or with a variable twice.

    Source: CTranslate2 `ModelSpec._serialize`.
    """
    if not file.is_file() or not file.stat().st_size:
        raise ValueError(f"{file}: no such file, or an empty one; fetch it again")
    try:
        return _read(_Reader(read_regular(file)))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: no complete CTranslate2 model ({error}); fetch it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


class _Reader:
    """Little-endian values, one after the other."""

    def __init__(self, data: bytes):
        self.data = data
        self.offset = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.offset)
        self.offset += struct.calcsize(kind)
        return value

    def text(self) -> str:
        """A string, of which the format stores the closing zero, too."""
        start = self.offset + 2
        self.offset = start + self.number("H")
        found = self.data[start : self.offset]
        if not found.endswith(b"\0") or b"\0" in found[:-1]:
            raise ValueError(f"byte {start} does not begin a string; fetch it again")
        return found[:-1].decode()

    def array(self, dtype: type, shape: tuple[int, ...], num_bytes: int) -> np.ndarray:
        if len(shape) > _MAX_DIMENSIONS or math.prod(shape) * np.dtype(dtype).itemsize != num_bytes:
            raise ValueError(f"an array of shape {shape} in {num_bytes} bytes; fetch it again")
        if self.offset + num_bytes > len(self.data):
            raise ValueError(f"truncated: {num_bytes} bytes from {self.offset} on; fetch it again")
        values = np.frombuffer(self.data, dtype, math.prod(shape), self.offset)
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
        if name in variables:
            raise ValueError(f"{name!r} stands in it twice; fetch it again")
        shape = tuple(reader.number("I") for _ in range(reader.number("B")))
        dtype = reader.number("B")
        if dtype >= len(_DTYPES):
            raise ValueError(f"{name!r} has numbers of kind {dtype}; convert the model to float16")
        values = reader.array(_DTYPES[dtype], shape, reader.number("I"))
        if bad := count_not_finite(values):
            raise ValueError(
                f"{bad} of {values.size} values of {name!r} are NaN or infinite; fetch it again"
            )
        variables[name] = values
    _skip_aliases(reader, variables)
    return variables


def _skip_aliases(reader: _Reader, variables: dict[str, np.ndarray]) -> None:
    """What ends the file: names of variables under which they can be found, too."""
    for _ in range(reader.number("I")):
        alias, name = reader.text(), reader.text()
        if name not in variables:
            raise ValueError(f"the alias {alias!r} is of {name!r}, which is not there")
    if reader.offset != len(reader.data):
        raise ValueError(f"bytes from {reader.offset} on belong to nothing; fetch it again")
