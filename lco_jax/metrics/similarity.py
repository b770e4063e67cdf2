"""Similarities of vectors by the names that sentence-transformers gives them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

_Vectors = Float[np.ndarray, "N E"]


def unit(vectors: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """Vectors of length 1 in the same directions; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def check_widths(a: _Vectors, b: Float[np.ndarray, "M F"]) -> None:
    """Refuse to compare vectors of different models.

    Raises:
        ValueError: there are some of both, and their widths differ.
    """
    if len(a) and len(b) and a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"vectors of width {a.shape[-1]} cannot be compared with vectors of width "
            f"{b.shape[-1]}; encode both with one model and truncate_dim"
        )


def _dot(a: _Vectors, b: Float[np.ndarray, "M E"]) -> Float[np.ndarray, "N M"]:
    return a @ b.T


def _negative_distance(metric: str) -> Callable[..., Float[np.ndarray, "N M"]]:
    def negative_distance(a: _Vectors, b: Float[np.ndarray, "M E"]) -> Float[np.ndarray, "N M"]:
        import scipy.spatial.distance  # takes a second, which embedding need not wait for

        return -scipy.spatial.distance.cdist(a, b, metric).astype(np.float32)

    return negative_distance


SIMILARITIES: dict[str, Callable[..., Float[np.ndarray, "N M"]]] = {
    "cosine": lambda a, b: _dot(unit(a), unit(b)),
    "dot": _dot,
    "euclidean": _negative_distance("euclidean"),
    "manhattan": _negative_distance("cityblock"),
}
"""Of every pair of two sets of vectors; distances are negative, so that more is nearer."""

PAIRWISE: dict[str, Callable[..., Float[np.ndarray, "N"]]] = {
    "cosine": lambda a, b: np.sum(unit(a) * unit(b), axis=-1),
    "dot": lambda a, b: np.sum(a * b, axis=-1),
    "euclidean": lambda a, b: -np.linalg.norm(a - b, axis=-1),
    "manhattan": lambda a, b: -np.abs(a - b).sum(axis=-1),
}
"""The same of pairs in order."""
