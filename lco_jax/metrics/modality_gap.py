"""How far apart two modalities lie in the space that they share."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lco_jax.metrics.anisotropy import unit_rows


@dataclass(frozen=True)
class ModalityGap:
    """Two sets of unit vectors, paired row by row.

    Source: Liang et al., "Mind the Gap" (2022), for `distance`.
    """

    distance: float
    """Between the means of both sets: 0 (none) to 2."""
    centroid_cosine: float
    """Of the two means; NaN if one is 0."""
    paired_cosine: float
    """Mean cosine of an item with its own partner."""
    unpaired_cosine: float
    """Mean cosine of an item with the partners of others."""


def modality_gap(x: Float[np.ndarray, "N E"], y: Float[np.ndarray, "N E"]) -> ModalityGap:
    """The gap between two modalities whose rows belong to the same items.

    Raises:
        ValueError: the sides have different shapes, or fewer than two items.
    """
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(
            f"got vectors of shapes {x.shape} and {y.shape}; both need the same, N >= 2"
        )
    x, y = unit_rows(x), unit_rows(y)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    lengths = np.linalg.norm(x_mean) * np.linalg.norm(y_mean)
    paired = float(np.einsum("ne,ne->", x, y))
    count = len(x)
    return ModalityGap(
        distance=float(np.linalg.norm(x_mean - y_mean)),
        centroid_cosine=float(x_mean @ y_mean / lengths) if lengths > 0 else float("nan"),
        paired_cosine=paired / count,
        unpaired_cosine=float((x_mean @ y_mean * count**2 - paired) / (count * (count - 1))),
    )
