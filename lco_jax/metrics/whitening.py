"""Whitening of a set of vectors: what retrieval gains from its second moments alone."""

import numpy as np
from jaxtyping import Float


def whiten(vectors: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "n E"]:
    """The vectors less their mean, times the inverse root of their covariance (symmetric: axes stay
    what they are). The covariance is shrunk towards a multiple of the identity, as there may be
    fewer vectors than dimensions.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    shrinkage, mean_variance = shrinkage_of(centred), centred.var()
    if mean_variance < np.finfo(np.float32).eps ** 2:  # they coincide, but for rounding
        return np.zeros_like(centred)
    energies, axes = np.linalg.eigh(_smaller_gram(centred))
    # Along axes without any variance nothing differs, whatever the shrinkage leaves there.
    variances = (1 - shrinkage) * np.maximum(energies, 0) / len(centred)
    variances += max(shrinkage, 1e-6) * mean_variance
    root = (axes / np.sqrt(variances)) @ axes.T
    return centred @ root if len(root) == centred.shape[1] else root @ centred


def shrinkage_of(centred: Float[np.ndarray, "n E"]) -> float:
    """How much of the identity a covariance is to be mixed with so that its squared error is least:
    0 trusts the sample, 1 takes the identity.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices
    (2004), as in scikit-learn.
    """
    count, width = centred.shape
    squares = centred**2
    trace = squares.sum() / count
    squared_norm = (_smaller_gram(centred) ** 2).sum() / count**2
    fourth = (squares.sum(axis=1) ** 2).sum() / count**2
    error = fourth - squared_norm / count
    distance = squared_norm - trace**2 / width
    return float(np.clip(error / distance, 0, 1)) if distance > 0 else 1.0


def _smaller_gram(centred: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "m m"]:
    """Products of the columns, or of the rows if these are fewer: both matrices have the same
    eigenvalues, but for zeros, and the same sum of squares."""
    count, width = centred.shape
    return centred.T @ centred if width <= count else centred @ centred.T
