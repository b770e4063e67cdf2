"""Exact search finds what sentence-transformers finds."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sentence_transformers import util

from lco_jax.search import cos_sim, dot_score, semantic_search

RNG = np.random.default_rng(0)
QUERIES = RNG.normal(size=(23, 16)).astype(np.float32)
CORPUS = 3 * RNG.normal(size=(301, 16)).astype(np.float32)


def ids(found):
    return [[hit["corpus_id"] for hit in hits] for hits in found]


def scores(found):
    return [[hit["score"] for hit in hits] for hits in found]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1},
        {"top_k": 1000},
        {"query_chunk_size": 4, "corpus_chunk_size": 50},
        {"query_chunk_size": 1, "corpus_chunk_size": 7, "top_k": 20},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("ours", "theirs"), [(cos_sim, util.cos_sim), (dot_score, util.dot_score)], ids=["cos", "dot"]
)
def test_the_same_as_sentence_transformers(options, ours, theirs):
    found = semantic_search(QUERIES, CORPUS, score_function=ours, **options)
    expected = util.semantic_search(
        torch.from_numpy(QUERIES), torch.from_numpy(CORPUS), score_function=theirs, **options
    )
    assert ids(found) == ids(expected)
    np.testing.assert_allclose(scores(found), scores(expected), rtol=1e-5, atol=1e-6)
    assert [set(hit) for hits in found for hit in hits] == [
        set(hit) for hits in expected for hit in hits
    ]


@pytest.mark.parametrize("corpus_chunk_size", [500_000, 8, 5])
def test_ties_come_in_the_order_of_the_corpus(corpus_chunk_size):
    """sentence-transformers finds the same scores; which rows of a tie it takes is chance."""
    corpus = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 40)]
    queries = np.array([[1, 0.5, 0.25, 0], [0, 0, 1, 1]], np.float32)
    options = {"top_k": 13, "corpus_chunk_size": corpus_chunk_size, "score_function": dot_score}
    found = semantic_search(queries, corpus, **options)
    options["score_function"] = util.dot_score
    expected = util.semantic_search(queries, corpus, **options)
    assert scores(found) == scores(expected)
    for query, own in zip(queries, ids(found), strict=True):
        assert own == np.argsort(-(corpus @ query), kind="stable")[:13].tolist()


@pytest.mark.parametrize(
    "convert",
    [np.float64, torch.from_numpy, jnp.asarray, lambda x: x.tolist(), lambda x: x.astype(np.int8)],
    ids=["float64", "torch", "jax", "list", "int8"],
)
def test_arrays_of_any_library(convert):
    found = semantic_search(convert(10 * QUERIES), convert(10 * CORPUS), top_k=3)
    expected = util.semantic_search(
        torch.tensor(np.asarray(convert(10 * QUERIES))).float(),
        torch.tensor(np.asarray(convert(10 * CORPUS))).float(),
        top_k=3,
    )
    assert ids(found) == ids(expected)


def test_one_query_and_no_corpus():
    found = semantic_search(QUERIES[0], CORPUS, top_k=2)
    assert ids(found) == ids(semantic_search(QUERIES[:1], CORPUS, top_k=2))
    assert semantic_search(QUERIES, np.zeros((0, 16))) == [[]] * len(QUERIES)
    assert semantic_search(np.zeros((0, 16)), CORPUS) == []


def test_a_score_function_of_torch():
    found = semantic_search(QUERIES, CORPUS, score_function=util.cos_sim)
    assert ids(found) == ids(semantic_search(QUERIES, CORPUS))


def test_a_zero_vector_scores_zero():
    corpus = np.concatenate([CORPUS[:2], np.zeros((1, 16), np.float32)])
    (hits,) = semantic_search(QUERIES[0], corpus)
    assert {hit["corpus_id"]: hit["score"] for hit in hits}[2] == 0


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (CORPUS, {"top_k": 0}, "top_k=0 must be at least 1"),
        (CORPUS, {"corpus_chunk_size": 0}, "corpus_chunk_size=0"),
        (CORPUS[:, :8], {}, "width 16 cannot be compared with .* width 8"),
        (CORPUS, {"top_k": 2.5}, "top_k=2.5 must be at least 1, and a whole number"),
        (CORPUS, {"top_k": "3"}, "top_k='3' must be"),
        (CORPUS[None], {}, r"shape \(1, 301, 16\)"),
        (np.where(np.arange(301)[:, None] == 70, np.nan, CORPUS), {}, "corpus row 70"),
        (CORPUS, {"score_function": lambda a, b: np.zeros((1, 1))}, r"gave shape \(1, 1\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_searched(corpus, options, message):
    options = {"corpus_chunk_size": 50, **options}
    with pytest.raises(ValueError, match=message):
        semantic_search(QUERIES, corpus, **options)


@pytest.mark.parametrize("compare", [cos_sim, dot_score])
def test_widths_that_differ_are_named(compare):
    with pytest.raises(ValueError, match=r"of width 16 cannot be compared with .* of width 8"):
        compare(QUERIES, CORPUS[:, :8])
