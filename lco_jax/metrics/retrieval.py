"""Retrieval with one relevant document per query: recall, reciprocal rank, nDCG.

Documents whose cosines are tied have no order, so each metric is its expectation over all orders of
them. A space in which all vectors coincide then scores exactly what a random order does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Cosines closer than this are tied. The float32 vectors of one text from batches of other shapes
# are up to 2e-6 apart (SmolLM2-135M), and products of unit vectors err as well. In lower precision
# the error is larger than what parts neighbours in a ranking: leave equal texts out beforehand.
_TIE = 2e-6
_BLOCK_BYTES = 64 * 2**20


class Ranks(NamedTuple):
    """Where each query's relevant document stands, from 1: at `first` or at one of the `tied - 1`
    places after it, each as likely."""

    first: Int[np.ndarray, "Q"]
    tied: Int[np.ndarray, "Q"]
    """How many documents share these places, the relevant one included."""

    @property
    def expected(self) -> Float[np.ndarray, "Q"]:
        """The mean over orders of what is tied; halves come from ties."""
        return self.first + (self.tied - 1) / 2


def retrieval_metrics(
    queries: Float[np.ndarray, "Q E"],
    documents: Float[np.ndarray, "N E"],
    relevant: Int[np.ndarray, "Q"],
    ks: Sequence[int] = (1, 10),
) -> dict[str, float]:
    """`recall@k` for every k, `mrr`, and `ndcg@k` at the largest k, as means over queries.

    Args:
        queries: unit vectors.
        documents: unit vectors.
        relevant: the index of each query's only relevant document.

    Raises:
        ValueError: see `relevant_ranks`.
    """
    scores = query_scores(relevant_ranks(queries, documents, relevant), ks)
    return {name: float(values.mean()) for name, values in scores.items()}


def relevant_ranks(
    queries: Float[np.ndarray, "Q E"],
    documents: Float[np.ndarray, "N E"],
    relevant: Int[np.ndarray, "Q"],
) -> Ranks:
    """The rank of each query's relevant document by cosine.

    Raises:
        ValueError: no queries, an index outside the documents, or vectors that are not finite.
    """
    if len(queries) == 0:
        raise ValueError("there are 0 queries; retrieval needs at least one")
    if relevant.min() < 0 or relevant.max() >= len(documents):
        raise ValueError(
            f"relevant has indices from {relevant.min()} to {relevant.max()}, but there are "
            f"{len(documents)} documents"
        )
    for name, vectors in (("queries", queries), ("documents", documents)):
        # A comparison with NaN is false, so a broken vector would rank first.
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise ValueError(f"{name} row {np.argmin(finite)} has values that are not finite")

    better, tied = np.empty((2, len(queries)), int)
    block = max(1, _BLOCK_BYTES // (documents.itemsize * len(documents)))
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        cosines = queries[rows] @ documents.T
        own = np.take_along_axis(cosines, relevant[rows, None], axis=1)
        better[rows] = (cosines > own + _TIE).sum(axis=1)
        tied[rows] = (np.abs(cosines - own) <= _TIE).sum(axis=1)
    return Ranks(better + 1, tied)


def choice_metrics(
    queries: Float[np.ndarray, "Q E"],
    right: Float[np.ndarray, "Q E"],
    wrong: Float[np.ndarray, "Q E"],
) -> dict[str, float]:
    """`accuracy` of choosing the right one of two by cosine; a tie counts half.

    Raises:
        ValueError: no queries, or vectors that are not finite.
    """
    if len(queries) == 0:
        raise ValueError("there are 0 queries; a choice needs at least one")
    margins = np.einsum("qe,qe->q", queries, right) - np.einsum("qe,qe->q", queries, wrong)
    if not np.isfinite(margins).all():
        raise ValueError(f"choice {np.argmin(np.isfinite(margins))} has values that are not finite")
    won = np.where(np.abs(margins) <= _TIE, 0.5, margins > 0)
    return {"accuracy": float(won.mean())}


def query_scores(ranks: Ranks, ks: Sequence[int] = (1, 10)) -> dict[str, Float[np.ndarray, "Q"]]:
    """The terms whose means are the metrics: of every query the expected score."""
    largest = max(ks)
    places = np.arange(1, max(int((ranks.first + ranks.tied).max()), largest + 1))
    # With one relevant document the ideal gain is 1 and needs no normalisation.
    gains = np.where(places <= largest, 1 / np.log2(1 + places), 0)
    recalls = {f"recall@{k}": _expected(places <= k, ranks) for k in ks}
    return {
        **recalls,
        "mrr": _expected(1 / places, ranks),
        f"ndcg@{largest}": _expected(gains, ranks),
    }


def chance(num_documents: int, ks: Sequence[int] = (1, 10)) -> dict[str, float]:
    """The metrics of a random order: what coinciding vectors score."""
    scores = query_scores(Ranks(np.array([1]), np.array([num_documents])), ks)
    return {name: float(value) for name, (value,) in scores.items()}


def _expected(values: Float[np.ndarray, "P"], ranks: Ranks) -> Float[np.ndarray, "Q"]:
    """The mean of what places are worth, from the first one, over those that are tied."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=float)])
    before = ranks.first - 1
    return (sums[before + ranks.tied] - sums[before]) / ranks.tied
