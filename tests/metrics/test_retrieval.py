"""Retrieval metrics against a plain oracle, and where plain ranking would flatter."""

import numpy as np
import pytest

from lco_jax.metrics import retrieval
from lco_jax.metrics.retrieval import query_scores, relevant_ranks, retrieval_metrics


def _unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _oracle(queries, documents, relevant):
    """Sort the documents of one query at a time, and walk down the ranking."""
    recall1, recall10, reciprocal, gain = [], [], [], []
    for query, wanted in zip(queries, relevant, strict=True):
        order = sorted(range(len(documents)), key=lambda i: -float(query @ documents[i]))
        grades = [1.0 if i == wanted else 0.0 for i in order]
        recall1.append(sum(grades[:1]))
        recall10.append(sum(grades[:10]))
        reciprocal.append(1 / (grades.index(1.0) + 1))
        gain.append(sum(g / np.log2(i + 2) for i, g in enumerate(grades[:10])))
    means = [np.mean(values) for values in (recall1, recall10, reciprocal, gain)]
    return dict(zip(("recall@1", "recall@10", "mrr", "ndcg@10"), means, strict=True))


@pytest.mark.parametrize("noise", [0.05, 0.3, 3.0])
def test_agrees_with_a_sorted_ranking(noise):
    rng = np.random.default_rng(0)
    documents = _unit(rng, 57, 16)
    relevant = rng.integers(57, size=80)
    queries = documents[relevant] + noise * _unit(rng, 80, 16)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    expected = _oracle(queries, documents, relevant)
    assert retrieval_metrics(queries, documents, relevant) == pytest.approx(expected, rel=1e-12)


def test_blocks_do_not_change_the_ranks(monkeypatch):
    rng = np.random.default_rng(1)
    queries, documents = _unit(rng, 23, 8), _unit(rng, 31, 8)
    relevant = rng.integers(31, size=23)
    whole = relevant_ranks(queries, documents, relevant)
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", 5 * 31 * 4)
    np.testing.assert_array_equal(relevant_ranks(queries, documents, relevant), whole)


def test_ties_take_the_mean_of_their_ranks():
    queries = np.eye(3, dtype=np.float32)[:1]
    documents = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2]]
    documents[4] = [0.6, 0.8, 0.0]
    # Rank 1 is document 0, rank 2 is document 4, and documents 1-3 share the ranks 3, 4 and 5.
    ranks = [relevant_ranks(queries, documents, np.array([i]))[0] for i in range(5)]
    assert ranks == [1, 4, 4, 4, 2]


@pytest.mark.parametrize("jitter", [0, 1e-8])
def test_a_collapsed_space_scores_like_chance(jitter):
    rng = np.random.default_rng(2)
    vectors = np.tile(_unit(rng, 1, 300), (101, 1)) + jitter * _unit(rng, 101, 300)
    vectors = vectors.astype(np.float32)
    metrics = retrieval_metrics(vectors, vectors, np.arange(101))
    expected = {"recall@1": 0, "recall@10": 0, "mrr": 1 / 51, "ndcg@10": 0}
    assert metrics == pytest.approx(expected)


def test_ks_name_the_scores():
    scores = query_scores(np.array([1.0, 2.5, 3.0, 6.0]), ks=(1, 3, 5))
    expected = {
        "recall@1": [1, 0, 0, 0],
        "recall@3": [1, 1, 1, 0],
        "recall@5": [1, 1, 1, 0],
        "mrr": [1, 1 / 2.5, 1 / 3, 1 / 6],
        "ndcg@5": [1, 1 / np.log2(3.5), 1 / 2, 0],
    }
    assert {name: list(values) for name, values in scores.items()} == expected


def test_bad_input_is_named():
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="0 queries"):
        retrieval_metrics(vectors[:0], vectors, np.arange(0))
    with pytest.raises(ValueError, match="from 1 to 3, but there are 3 documents"):
        retrieval_metrics(vectors, vectors, np.array([1, 2, 3]))
    broken = vectors.copy()
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="documents row 1"):
        retrieval_metrics(vectors, broken, np.arange(3))
