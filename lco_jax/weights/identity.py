"""What tells one model folder from another, read in no time."""

import hashlib
import math
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lco_jax.weights.files import SafetensorsFolder

_SAMPLE_VALUES = 64
_READ_WHOLE = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
)
"""Files that decide how items are read."""


def folder_digest(folder: Path) -> str:
    """A hash of a model folder: its settings, its tokenizer, and of every tensor the name, shape,
    dtype and the first, middle and last values.

    Raises:
        FileNotFoundError: the folder holds no weights.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in _READ_WHOLE:
        if (folder / name).exists():
            digest.update(name.encode() + (folder / name).read_bytes())
    source = SafetensorsFolder(folder)
    specs = source.specs
    for name in sorted(specs):
        size = math.prod(specs[name].shape)
        digest.update(f"{name} {specs[name]}".encode())
        for start in (0, size // 2, max(size - _SAMPLE_VALUES, 0)):
            (sample,) = source.read(name, [partial(_sample, start=start)])
            digest.update(sample.tobytes())
    return digest.hexdigest()


def _sample(tensor: Shaped[np.ndarray, "..."], start: int) -> Shaped[np.ndarray, "n"]:
    return tensor.reshape(-1)[start : start + _SAMPLE_VALUES]
