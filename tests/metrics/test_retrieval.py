"""Retrieval metrics against a plain oracle, and where plain ranking would flatter."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from lco_jax.metrics import retrieval
from lco_jax.metrics.retrieval import (
    Ranks,
    chance,
    query_scores,
    relevant_ranks,
    retrieval_metrics,
)


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


def test_ties_share_their_ranks():
    queries = np.eye(3, dtype=np.float32)[:1]
    documents = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2]]
    documents[4] = [0.6, 0.8, 0.0]
    # Rank 1 is document 0, rank 2 is document 4, and documents 1-3 share the ranks 3, 4 and 5.
    ranks = relevant_ranks(np.repeat(queries, 5, axis=0), documents, np.arange(5))
    assert ranks.first.tolist() == [1, 3, 3, 3, 2]
    assert ranks.tied.tolist() == [1, 3, 3, 3, 1]
    assert ranks.expected.tolist() == [1, 4, 4, 4, 2]


@pytest.mark.parametrize("seed", range(4))
def test_ties_are_expectations_over_all_orders(seed):
    """Every order of the documents is ranked stably, which breaks ties by it."""
    rng = np.random.default_rng(seed)
    kinds = _unit(rng, 3, 4)
    documents = kinds[rng.integers(3, size=7)]  # seven documents, of which many coincide
    queries, relevant = _unit(rng, 5, 4), rng.integers(7, size=5)
    orders = map(list, itertools.permutations(range(7)))
    found = defaultdict(list)
    for order in orders:
        cosines = (queries.astype(float) @ documents.T.astype(float)).round(5)[:, order]
        ranked = np.argsort(-cosines, axis=1, kind="stable")
        places = np.array([
            list(row).index(order.index(wanted)) + 1
            for row, wanted in zip(ranked, relevant, strict=True)
        ])  # fmt: skip
        for k in (1, 2, 4):
            found[f"recall@{k}"].append(places <= k)
        found["mrr"].append(1 / places)
        found["ndcg@4"].append(np.where(places <= 4, 1 / np.log2(1 + places), 0))
    scores = query_scores(relevant_ranks(queries, documents, relevant), ks=(1, 2, 4))
    assert scores.keys() == found.keys()
    for name, values in scores.items():
        np.testing.assert_allclose(values, np.mean(found[name], axis=0), atol=1e-12)


@pytest.mark.parametrize("jitter", [0, 1e-8, 1e-7])
def test_a_collapsed_space_scores_exactly_chance(jitter):
    """With the noise of vectors of one text that come from batches of other shapes, too."""
    rng = np.random.default_rng(2)
    vectors = np.tile(_unit(rng, 1, 300), (101, 1)) + jitter * rng.normal(size=(101, 300))
    vectors = vectors.astype(np.float32)
    metrics = retrieval_metrics(vectors, vectors, np.arange(101))
    harmonic = sum(1 / rank for rank in range(1, 102))
    gain = sum(1 / np.log2(1 + rank) for rank in range(1, 11))
    expected = {"recall@1": 1, "recall@10": 10, "mrr": harmonic, "ndcg@10": gain}
    expected = {name: value / 101 for name, value in expected.items()}
    assert metrics == pytest.approx(expected, rel=1e-12)
    assert chance(101) == pytest.approx(expected, rel=1e-12)


def test_a_mean_rank_is_no_expectation():
    """The rank of two documents is 1.5; the first answer is right every other time."""
    scores = query_scores(Ranks(np.array([1]), np.array([2])), ks=(1, 2))
    assert scores["recall@1"] == 0.5 and scores["mrr"] == (1 + 1 / 2) / 2
    assert scores["recall@2"] == 1 and chance(2)["recall@10"] == 1


def test_ks_name_the_scores():
    scores = query_scores(Ranks(np.array([1, 2, 3, 6]), np.array([1, 2, 1, 1])), ks=(1, 3, 5))
    expected = {
        "recall@1": [1, 0, 0, 0],
        "recall@3": [1, 1, 1, 0],
        "recall@5": [1, 1, 1, 0],
        "mrr": [1, (1 / 2 + 1 / 3) / 2, 1 / 3, 1 / 6],
        "ndcg@5": [1, (1 / np.log2(3) + 1 / 2) / 2, 1 / 2, 0],
    }
    assert scores.keys() == expected.keys()
    for name, values in scores.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-12)


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
