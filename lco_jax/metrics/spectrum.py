"""How many directions a set of vectors uses, and how evenly."""

import numpy as np
from jaxtyping import Float

from lco_jax.metrics.anisotropy import unit_rows


def effective_rank(vectors: Float[np.ndarray, "N E"]) -> float:
    """The number of directions in use: exp of the entropy of the normalised singular values.

    Vectors are taken at length 1. The mean is not removed, so a collapsed set has rank 1; a set
    with k equal singular values has rank k, and min(N, E) is the bound.

    Source: Roy and Vetterli, "The effective rank" (2007).
    """
    singular = np.sqrt(_eigenvalues(unit_rows(vectors)))
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def isoscore(vectors: Float[np.ndarray, "N E"]) -> float:
    """How evenly the variance spreads over the dimensions: 1 if equal in all, 0 if in one.

    The mean is removed and lengths are kept. A set without variance scores 0. With fewer vectors
    than dimensions the covariance is singular and the score low, whatever the source of the
    vectors; compare only sets of equal size.

    Raises:
        ValueError: fewer than two vectors or dimensions.
    Source: Rudman et al., "IsoScore: Measuring the Uniformity of Embedding Space Utilization"
    (2022). Its steps amount to (r - 1) / (E - 1) with the participation ratio
    r = (Σ λ)² / Σ λ² of the eigenvalues λ of the covariance.
    """
    count, width = vectors.shape
    if count < 2 or width < 2:
        raise ValueError(
            f"isoscore got {count} vectors of width {width} and needs at least 2 of each"
        )
    vectors = vectors.astype(np.float64)
    eigenvalues = _eigenvalues(vectors - vectors.mean(axis=0))
    energy = np.sum(eigenvalues**2)
    if energy == 0:
        return 0.0
    return float((eigenvalues.sum() ** 2 / energy - 1) / (width - 1))


def _eigenvalues(rows: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "M"]:
    """Eigenvalues of the smaller Gram matrix; what rounding leaves of a zero is zero."""
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    values = np.linalg.eigvalsh(gram)
    noise = len(gram) * np.finfo(np.float64).eps * values[-1]
    return np.where(values > noise, values, 0.0)
