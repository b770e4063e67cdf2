"""The embeddings of the same pairs before and after training, and how sure the difference is."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.retrieval import Ranks, query_scores, relevant_ranks
from lco_jax.metrics.spectrum import effective_rank


@dataclass(frozen=True)
class EmbeddedPairs:
    """Unit vectors of n anchors and of their positives, after `step` steps."""

    step: int
    anchors: Float[np.ndarray, "n E"]
    positives: Float[np.ndarray, "n E"]

    def centred(self) -> "EmbeddedPairs":
        """The same pairs with the mean vector removed: what retrieval gains without training."""
        mean = np.concatenate([self.anchors, self.positives]).mean(axis=0)
        return dataclasses.replace(
            self,
            anchors=_normalise(self.anchors - mean),
            positives=_normalise(self.positives - mean),
        )

    def cosines(self) -> Float[np.ndarray, "n n"]:
        """Every anchor (row) with every positive (column)."""
        return self.anchors @ self.positives.T

    def ranks(self) -> Ranks:
        """The rank of each anchor's positive among all positives."""
        return relevant_ranks(self.anchors, self.positives, np.arange(len(self.anchors)))

    def scores(self) -> dict[str, Float[np.ndarray, "n"]]:
        """Every anchor's retrieval scores; their means are the metrics."""
        return query_scores(self.ranks())

    def spread(self) -> dict[str, float]:
        """How evenly the positives fill the space; the evaluation of a run logs the same."""
        return {
            "mean_cosine": mean_cosine(self.positives),
            "effective_rank": effective_rank(self.positives),
        }


def bootstrap_interval(
    differences: Float[np.ndarray, "n"], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of paired differences, queries resampled.

    The intervals say how far the result depends on the choice of queries, not of the seed.
    """
    picks = np.random.default_rng(seed).integers(
        len(differences), size=(resamples, len(differences))
    )
    low, high = np.percentile(differences[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _normalise(vectors: np.ndarray) -> np.ndarray:
    # A set that has collapsed to its mean leaves zeros, which stay zeros (and tie).
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)
