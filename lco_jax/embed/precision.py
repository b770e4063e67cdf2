"""Vectors in fewer bytes, as sentence-transformers quantises them."""

import logging
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
_FEW = 100


def quantize(
    vectors: Float[np.ndarray, "N E"], precision: str, without: Sequence[int] = ()
) -> Shaped[np.ndarray, "N F"]:
    """Vectors in another precision.

    `int8` and `uint8` cut the range of each dimension over these vectors into 256 steps, so other
    vectors get other steps. `binary` and `ubinary` keep the signs, eight in a byte. `float16` is
    ours.

    Args:
        without: rows that are not vectors; they are zero, and steps do not depend on them.

    Raises:
        ValueError: an unknown precision, or steps from a single vector.

    Source: sentence-transformers 6.2 `quantize_embeddings`.
    """
    check_precision(precision)
    if not len(without):
        return _quantize(vectors, precision)
    good = np.setdiff1d(np.arange(len(vectors)), without)
    found = _quantize(vectors[good], precision)
    result = np.zeros((len(vectors), found.shape[1]), found.dtype)
    result[good] = found
    return result


def _quantize(vectors: Float[np.ndarray, "N E"], precision: str) -> Shaped[np.ndarray, "N F"]:
    if precision.startswith("float"):
        return vectors.astype(precision, copy=False)
    signed = precision in ("int8", "binary")
    if precision.endswith("binary"):
        packed = np.packbits(vectors > 0, axis=-1)
        return (packed - 128).astype(np.int8) if signed else packed
    if not len(vectors):
        return np.zeros(vectors.shape, precision)
    if len(vectors) == 1:
        raise ValueError(
            f"precision={precision!r} takes its steps from the vectors of one call, and this call "
            "has one; give more inputs at a time, or quantise later, with ranges of your own "
            "(sentence_transformers.quantize_embeddings)"
        )
    if len(vectors) < _FEW:
        log.warning(
            "steps of precision=%r are taken from %d vectors; with more they are steadier",
            precision,
            len(vectors),
        )
    low = vectors.min(axis=0)
    steps = (vectors.max(axis=0) - low) / 255
    steps = np.where(steps == 0, 1, steps)
    values = np.clip(np.floor((vectors - low) / steps), 0, 255)
    return (values - 128).astype(np.int8) if signed else values.astype(np.uint8)


def check_precision(precision: str) -> None:
    """Refuse an unknown precision.

    Raises:
        ValueError: it is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is none of {list(PRECISIONS)}")
