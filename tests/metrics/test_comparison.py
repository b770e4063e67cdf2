"""Treatments of pairs, and intervals over seeds and queries, against plain oracles."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from lco_jax.metrics.comparison import EmbeddedPairs, bootstrap_interval, two_level_interval
from lco_jax.metrics.retrieval import chance
from lco_jax.metrics.whitening import shrinkage_of, whiten


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# ----------------------------------------------------------------------------------- treatments


@pytest.mark.parametrize("shape", [(44, 90), (200, 30), (5, 3), (60, 60)])
def test_shrinkage_is_that_of_scikit_learn(shape):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1]))
    vectors -= vectors.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(vectors, assume_centered=True)
    assert shrinkage_of(vectors) == pytest.approx(shrinkage, rel=1e-9)
    # The whitened vectors have the identity for their covariance, as far as that is trusted.
    whitened = whiten(vectors)
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    np.testing.assert_allclose(
        np.square(whitened).sum(axis=1), np.square(vectors @ root.T).sum(axis=1), rtol=1e-6
    )


def test_vectors_with_enough_of_them_become_white():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20_000, 4)) @ rng.normal(size=(4, 4)) + 3
    np.testing.assert_allclose(np.cov(whiten(vectors).T), np.eye(4), atol=0.02)


def test_a_collapsed_side_stays_at_chance():
    same = np.tile(unit(np.random.default_rng(2).normal(size=(1, 6))), (20, 1)).astype(np.float32)
    other = unit(np.random.default_rng(3).normal(size=(20, 6))).astype(np.float32)
    for pairs in (EmbeddedPairs(0, same, other), EmbeddedPairs(0, other, same)):
        for treated in (pairs, pairs.centred_by_side(), pairs.whitened_by_side()):
            if pairs.positives is same:  # nothing tells the documents apart
                assert treated.scores()["mrr"].mean() == pytest.approx(chance(20)["mrr"])
            assert np.isfinite(treated.scores()["mrr"]).all()


def test_each_side_loses_its_own_offset():
    """Two modalities that differ by an offset and a scale of axes are joined again."""
    rng = np.random.default_rng(4)
    texts = rng.normal(size=(400, 5))
    gap = EmbeddedPairs(0, unit(texts), unit(texts + 8 * rng.normal(size=5)))
    means = {
        name: found.scores()["mrr"].mean()
        for name, found in {
            "raw": gap,
            "centred": gap.centred(),
            "by_side": gap.centred_by_side(),
        }.items()
    }
    assert means["raw"] < 0.3 and means["centred"] < 0.5 < means["by_side"]
    stretched = EmbeddedPairs(0, unit(texts), unit(texts * [20, 1, 1, 0.1, 1]))
    raw, white = (
        found.scores()["mrr"].mean() for found in (stretched, stretched.whitened_by_side())
    )
    assert white > raw + 0.2


# ------------------------------------------------------------------------------------ intervals


def simulate(rng, same_queries, num_seeds=5, num_queries=40, of_seeds=0.1, of_queries=0.5):
    """Differences of mean zero with spreads of seeds and queries."""
    effects = of_queries * rng.normal(size=num_queries)
    found = []
    for _ in range(num_seeds):
        queries = effects if same_queries else of_queries * rng.normal(size=num_queries)
        found.append(of_seeds * rng.normal() + queries + 0.1 * rng.normal(size=num_queries))
    return found


@pytest.mark.parametrize("same_queries", [True, False])
def test_intervals_cover_the_truth_as_often_as_they_say(same_queries):
    rng = np.random.default_rng(5)
    covered = [
        low < 0 < high
        for low, high in (
            two_level_interval(
                simulate(rng, same_queries), same_queries=same_queries, resamples=200
            )
            for _ in range(300)
        )
    ]
    # Five seeds spread too little in a bootstrap, but they matter less than the queries here.
    assert 0.87 < np.mean(covered) < 0.99


def test_queries_that_all_seeds_share_do_not_count_once_for_each():
    found = simulate(np.random.default_rng(6), True, of_seeds=0.0)
    alike, apart = (np.ptp(two_level_interval(found, same_queries=same)) for same in (True, False))
    assert alike == pytest.approx(np.ptp(bootstrap_interval(np.mean(found, axis=0))), rel=0.15)
    assert apart < 0.6 * alike


def test_seeds_widen_the_interval():
    found = [np.full(40, value) for value in (-0.2, 0.0, 0.1, 0.3)]
    low, high = two_level_interval(found, same_queries=True)
    assert low < -0.05 and high > 0.15
    assert np.ptp(bootstrap_interval(np.mean(found, axis=0))) == 0
    assert two_level_interval(found[:1], same_queries=True) == pytest.approx((-0.2, -0.2))


def test_runs_without_queries_are_refused():
    with pytest.raises(ValueError, match=r"runs have \[3, 2\] queries"):
        two_level_interval([np.zeros(3), np.zeros(2)], same_queries=True)
    with pytest.raises(ValueError, match=r"runs have \[\] queries"):
        two_level_interval([], same_queries=False)
