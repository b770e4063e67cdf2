"""What the hub folders that the lab makes are put together from."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Shaped
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from lco_jax.runtime.disks import replace_text, writing
from lco_jax.weights.rows import Row

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 splits text before byte-pair merging."""


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one of the folder's configs."""
    replace_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_weights(folder: Path, tensors: dict[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write tensors under their hub names."""
    file = folder / "model.safetensors"
    with writing(file, sum(x.nbytes for x in tensors.values())):
        safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})


def random_tensor(
    row: Row, shape: tuple[int, ...], rng: np.random.Generator, *, gain: float = 1.0
) -> Float[np.ndarray, "..."]:
    """A tensor before training: scales 1, biases 0, and matrices that multiply the spread of what
    they read by `gain`."""
    if row.ours.endswith("scale"):
        return np.ones(shape)
    if row.ours.endswith("bias"):
        return np.zeros(shape)
    # On the hub a matrix has its outputs first.
    fan_in = math.prod(shape) // row.layout.to_hub(np.empty(shape)).shape[0]
    return rng.normal(scale=gain * fan_in**-0.5, size=shape)


def qwen2_tokenizer(model: models.BPE) -> Tokenizer:
    """A byte-level BPE tokenizer that splits words as Qwen2 does, without special tokens.

    Source: transformers Qwen2Tokenizer.
    """
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
