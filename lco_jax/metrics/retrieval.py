"""Retrieval with one relevant document per query: recall, reciprocal rank, nDCG.

Ties share the mean of the ranks that they occupy, so a space in which all vectors coincide scores
like chance and not like perfection.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

# Cosines closer than this are tied: float32 dot products of unit vectors err by less, and what is
# left of the order of coinciding vectors would depend on the blocking of the matrix product.
_TIE = 1e-6
_BLOCK_BYTES = 64 * 2**20


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
) -> Float[np.ndarray, "Q"]:
    """The rank of each query's relevant document by cosine, from 1; halves come from ties.

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

    ranks = np.empty(len(queries))
    block = max(1, _BLOCK_BYTES // (documents.itemsize * len(documents)))
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        cosines = queries[rows] @ documents.T
        own = np.take_along_axis(cosines, relevant[rows, None], axis=1)
        better = (cosines > own + _TIE).sum(axis=1)
        tied = (np.abs(cosines - own) <= _TIE).sum(axis=1)  # the relevant document included
        ranks[rows] = better + (tied + 1) / 2
    return ranks


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


def query_scores(
    ranks: Float[np.ndarray, "Q"], ks: Sequence[int] = (1, 10)
) -> dict[str, Float[np.ndarray, "Q"]]:
    """The terms whose means are the metrics: every query's score, from its relevant rank."""
    largest = max(ks)
    # With one relevant document the ideal gain is 1 and needs no normalisation.
    gains = np.where(ranks <= largest, 1 / np.log2(1 + ranks), 0)
    recalls = {f"recall@{k}": (ranks <= k).astype(float) for k in ks}
    return {**recalls, "mrr": 1 / ranks, f"ndcg@{largest}": gains}
