"""How evenly a set of embeddings fills its space."""

import numpy as np
from jaxtyping import Float


def mean_cosine(vectors: Float[np.ndarray, "N E"]) -> float:
    """The mean cosine of two different vectors of the set: 0 is isotropic, 1 is collapsed.

    Raises:
        ValueError: fewer than two vectors.
    Source: LCO-Emb §3, anisotropy. The released script divides by the number of non-zero cosines
    instead of the number of pairs, which differs only if a cosine is exactly 0.
    """
    count = len(vectors)
    if count < 2:
        raise ValueError(f"mean_cosine got {count} vectors and needs at least 2")
    unit = _unit(vectors)
    # The sum over all ordered pairs is |Σ u|², and each vector's cosine with itself is 1.
    total = np.sum(unit, axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def effective_rank(vectors: Float[np.ndarray, "N E"]) -> float:
    """The number of directions in use: exp of the entropy of the normalised singular values.

    The mean is not removed, so a collapsed set has rank 1; a set with k equal singular values has
    rank k, and min(N, E) is the bound.

    Source: Roy and Vetterli, "The effective rank" (2007).
    """
    singular = np.linalg.svd(_unit(vectors), compute_uv=False)
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def _unit(vectors: np.ndarray) -> np.ndarray:
    # Float64, since the differences of nearly collapsed vectors are small against their sum.
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
