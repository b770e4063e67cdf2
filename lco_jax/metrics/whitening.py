"""Whitening of a set of vectors: what retrieval gains from its second moments alone."""

import numpy as np
from jaxtyping import Float


def whiten(vectors: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "n E"]:
    """The vectors less their mean, times the inverse root of their covariance (symmetric: axes stay
    what they are). The covariance is shrunk towards a multiple of the identity, as there may be
    fewer vectors than dimensions.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    covariance, shrinkage = centred.T @ centred / len(centred), shrinkage_of(centred)
    mean_variance = np.trace(covariance) / len(covariance)
    if mean_variance < np.finfo(np.float32).eps ** 2:  # they coincide, but for rounding
        return np.zeros_like(centred)
    # Along axes without any variance nothing differs, whatever the shrinkage leaves there.
    shrunk = (1 - shrinkage) * covariance
    shrunk[np.diag_indices_from(shrunk)] += max(shrinkage, 1e-6) * mean_variance
    variances, axes = np.linalg.eigh(shrunk)
    return centred @ (axes / np.sqrt(variances)) @ axes.T


def shrinkage_of(centred: Float[np.ndarray, "n E"]) -> float:
    """How much of the identity a covariance is to be mixed with so that its squared error is least:
    0 trusts the sample, 1 takes the identity.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices
    (2004), as in scikit-learn.
    """
    count, width = centred.shape
    squares = centred**2
    trace = squares.sum() / count
    gram = centred @ centred.T  # of n x n: its squares sum up to those of the covariance
    squared_norm = (gram**2).sum() / count**2
    fourth = (squares.sum(axis=1) ** 2).sum() / count**2
    error = fourth - squared_norm / count
    distance = squared_norm - trace**2 / width
    return float(np.clip(error / distance, 0, 1)) if distance > 0 else 1.0
