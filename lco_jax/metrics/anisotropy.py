"""How far the vectors of a set point the same way."""

import numpy as np
from jaxtyping import Float


def mean_cosine(vectors: Float[np.ndarray, "N E"]) -> float:
    """The mean cosine of two different vectors of the set: 0 is isotropic, 1 is collapsed.

    Raises:
        ValueError: fewer than two vectors.
    Source: LCO-Emb §3, anisotropy. The released script divides by the number of non-zero cosines
    instead of the number of pairs, which differs only if a cosine is exactly 0.
    """
    count = _count(vectors, "mean_cosine")
    unit = unit_rows(vectors)
    # The sum over all ordered pairs is |Σ u|², and each vector's cosine with itself is 1.
    total = np.sum(unit, axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def mean_cosine_margin(vectors: Float[np.ndarray, "N E"]) -> float:
    """Half of the 95 % interval of `mean_cosine`, vectors taken as independent draws.

    Source: Hoeffding (1948), the variance of a mean over pairs: that of each vector's own mean
    cosine with the others counts four times.
    """
    count = _count(vectors, "mean_cosine_margin")
    unit = unit_rows(vectors)
    own = (unit @ np.sum(unit, axis=0) - 1) / (count - 1)
    return float(1.96 * 2 * own.std(ddof=1) / np.sqrt(count))


def cosine_histogram(
    vectors: Float[np.ndarray, "N E"], bins: int = 80, most: int = 2000
) -> tuple[Float[np.ndarray, "B+1"], Float[np.ndarray, "B"]]:
    """Edges and densities of the cosines of two different vectors of the set, of at most the first
    `most`; the edges go from -1 to 1.
    """
    count = min(_count(vectors, "cosine_histogram"), most)
    unit = unit_rows(vectors[:count])
    cosines = (unit @ unit.T)[np.triu_indices(count, k=1)]
    density, edges = np.histogram(np.clip(cosines, -1, 1), bins=bins, range=(-1, 1), density=True)
    return edges, density


def unit_rows(vectors: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """The vectors at length 1, in float64: nearly collapsed ones differ little from their sum."""
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _count(vectors: np.ndarray, name: str) -> int:
    if len(vectors) < 2:
        raise ValueError(f"{name} got {len(vectors)} vectors and needs at least 2")
    return len(vectors)
