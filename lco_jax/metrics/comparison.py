"""The embeddings of the same pairs before and after training, and how sure the difference is."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.retrieval import Ranks, query_scores, relevant_ranks
from lco_jax.metrics.spectrum import effective_rank
from lco_jax.metrics.whitening import whiten


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

    def centred_by_side(self) -> "EmbeddedPairs":
        """The same pairs, each side without its own mean: without the gap between modalities."""
        return dataclasses.replace(
            self,
            anchors=_normalise(self.anchors - self.anchors.mean(axis=0)),
            positives=_normalise(self.positives - self.positives.mean(axis=0)),
        )

    def whitened_by_side(self) -> "EmbeddedPairs":
        """The same pairs, each side whitened by its own mean and shrunk covariance."""
        return dataclasses.replace(
            self,
            anchors=_normalise(whiten(self.anchors)),
            positives=_normalise(whiten(self.positives)),
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


def two_level_interval(
    differences: Sequence[Float[np.ndarray, "n"]],
    *,
    same_queries: bool,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of paired differences, runs and queries resampled.

    Runs are drawn with replacement, and in each drawn run queries. It covers the choice of both;
    of few runs it says too little, as their spread comes out too small by (S - 1) / S.

    Args:
        differences: of each run (of another seed) one for every query.
        same_queries: whether query i is the same in all runs. Then a resample draws queries once
            for all runs: drawn for each, they would count as that many more queries.

    Raises:
        ValueError: there are no runs, or runs of the same queries have different numbers of them.
    """
    sizes = {len(values) for values in differences}
    if not differences or 0 in sizes or (same_queries and len(sizes) > 1):
        raise ValueError(f"runs have {[len(values) for values in differences]} queries")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for index in range(resamples):
        runs = rng.integers(len(differences), size=len(differences))
        if same_queries:
            counts = np.bincount(runs, minlength=len(differences))
            queries = rng.integers(len(differences[0]), size=len(differences[0]))
            pooled = sum(count * differences[run][queries] for run, count in enumerate(counts))
            means[index] = pooled.mean() / len(differences)
        else:
            drawn = [differences[run] for run in runs]
            picked = [values[rng.integers(len(values), size=len(values))] for values in drawn]
            means[index] = np.concatenate(picked).mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _normalise(vectors: np.ndarray) -> np.ndarray:
    # A set that has collapsed to its mean leaves zeros, which stay zeros (and tie).
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)
