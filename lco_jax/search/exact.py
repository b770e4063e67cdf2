"""The nearest vectors of a corpus, exactly; the names are those of sentence-transformers."""

from collections.abc import Callable
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from lco_jax.metrics.similarity import check_widths, unit


class Hit(TypedDict):
    """A row of the corpus that was found."""

    corpus_id: int
    score: float


def cos_sim(a: ArrayLike, b: ArrayLike) -> Float[np.ndarray, "N M"]:
    """Cosine of every pair of rows.

    Raises:
        ValueError: widths that differ.
    """
    return dot_score(unit(_as_matrix(a)), unit(_as_matrix(b)))


def dot_score(a: ArrayLike, b: ArrayLike) -> Float[np.ndarray, "N M"]:
    """Dot product of every pair of rows.

    Raises:
        ValueError: widths that differ.
    """
    a, b = _as_matrix(a), _as_matrix(b)
    check_widths(a, b)
    return a @ b.T


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: Callable[[ArrayLike, ArrayLike], ArrayLike] = cos_sim,
) -> list[list[Hit]]:
    """For each query the rows of the corpus with the highest scores, best first.

    Rows with the same score come in the order of the corpus, whatever the chunks. (In
    sentence-transformers chance decides among them.)

    Args:
        query_embeddings: one row a query, or a single vector.
        corpus_embeddings: one row an item.
        query_chunk_size: queries that are compared at a time.
        corpus_chunk_size: rows that they are compared with at a time: memory holds the scores of
            one such block.
        top_k: how many rows to find; a smaller corpus is found whole.
        score_function: of rows `(n, E)` and `(m, E)`, gives `(n, m)` scores.

    Raises:
        ValueError: widths that differ, a size that is not whole or below 1, or values that are not
            finite.

    Source: sentence_transformers.util.semantic_search.
    """
    for name, size in (
        ("query_chunk_size", query_chunk_size),
        ("corpus_chunk_size", corpus_chunk_size),
        ("top_k", top_k),
    ):
        is_whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if not is_whole or size < 1:
            raise ValueError(f"{name}={size!r} must be at least 1, and a whole number")
    queries, corpus = _as_matrix(query_embeddings), _as_rows(corpus_embeddings)
    check_widths(queries, corpus)
    _require_finite("query", queries, 0)
    with_cosines = score_function is cos_sim
    if with_cosines:
        queries = unit(queries)
    best = [_Best(top_k) for _ in queries]
    # Chunks of the corpus are the outer loop, so that each is read and normalised once.
    for start in range(0, len(corpus), corpus_chunk_size):
        chunk = _as_matrix(corpus[start : start + corpus_chunk_size])
        _require_finite("corpus", chunk, start)
        if with_cosines:
            chunk = unit(chunk)
        for first in range(0, len(queries), query_chunk_size):
            asked = queries[first : first + query_chunk_size]
            score = dot_score if with_cosines else score_function
            scores = np.asarray(score(asked, chunk))
            if scores.shape != (len(asked), len(chunk)):
                raise ValueError(
                    f"score_function gave shape {scores.shape} for {len(asked)} queries and "
                    f"{len(chunk)} rows; expected {(len(asked), len(chunk))}"
                )
            for own, row in zip(best[first:], scores, strict=False):
                own.add(row, start)
    return [own.hits() for own in best]


class _Best:
    """The best rows so far of one query."""

    def __init__(self, count: int):
        self._count = count
        self._scores: np.ndarray | None = None
        self._rows = np.zeros(0, np.int64)

    def add(self, scores: Float[np.ndarray, "M"], start: int) -> None:
        """Consider the rows from `start` on."""
        if np.isnan(scores).any():
            row = start + int(np.flatnonzero(np.isnan(scores))[0])
            raise ValueError(f"the score of row {row} of the corpus is not a number")
        rows = _highest(scores, self._count)
        rows, scores = rows + start, scores[rows]
        if self._scores is not None:
            rows = np.concatenate([self._rows, rows])
            scores = np.concatenate([self._scores, scores])
        order = np.argsort(-scores, kind="stable")[: self._count]
        self._rows, self._scores = rows[order], scores[order]

    def hits(self) -> list[Hit]:
        if self._scores is None:
            return []
        pairs = zip(self._rows.tolist(), self._scores.tolist(), strict=True)
        return [Hit(corpus_id=row, score=score) for row, score in pairs]


def _highest(scores: Float[np.ndarray, "M"], count: int) -> Int[np.ndarray, "K"]:
    """The places of the `count` highest scores in order of place; of equal ones the first."""
    if count >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _as_matrix(vectors: ArrayLike) -> Float[np.ndarray, "N E"]:
    """Vectors of any array library and type as a matrix of floats; float64 stays."""
    matrix = _as_rows(vectors)
    return matrix if matrix.dtype == np.float64 else matrix.astype(np.float32, copy=False)


def _as_rows(vectors: ArrayLike) -> np.ndarray:
    """A single vector is one row."""
    rows = np.asarray(vectors)
    if rows.ndim == 1:
        rows = rows[None] if rows.size else rows.reshape(0, 0)
    if rows.ndim != 2:
        raise ValueError(f"embeddings of shape {rows.shape}; expected (rows, width)")
    return rows


def _require_finite(name: str, matrix: Float[np.ndarray, "N E"], start: int) -> None:
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name} row {start + bad[0]} has values that are not finite ({len(bad)} such rows "
            "here); leave out the rows of items that could not be embedded"
        )
