"""Correlations of cosines with gold scores, by ranks and by hand."""

import numpy as np
import pytest

from lco_jax.metrics.sts import sts_metrics


def _on_the_circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_by_hand():
    # Cosines 1, 0.5, 0 and -1; gold ranks 4, 2, 3, 1: Spearman = 1 - 6 · 2 / (4 · 15).
    first = _on_the_circle(np.zeros(4))
    second = _on_the_circle(np.array([0, np.pi / 3, np.pi / 2, np.pi]))
    found = sts_metrics(first, second, np.array([5.0, 2.0, 3.0, 0.0]))
    assert found["cosine_spearman"] == pytest.approx(0.8)
    cosines, gold = np.array([1, 0.5, 0, -1]), np.array([5, 2, 3, 0])
    assert found["cosine_pearson"] == pytest.approx(np.corrcoef(cosines, gold)[0, 1], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_ties_take_mean_ranks(seed):
    rng = np.random.default_rng(seed)
    first, second = (_on_the_circle(rng.uniform(0, 6, 60)) for _ in range(2))
    gold = rng.integers(0, 4, 60).astype(float)
    cosines = np.sum(first.astype(np.float64) * second, axis=1)

    def ranks(values):
        return [np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values]

    expected = np.corrcoef(ranks(cosines), ranks(gold))[0, 1]
    found = sts_metrics(first, second, gold)["cosine_spearman"]
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_collapsed_space_orders_nothing():
    same = _on_the_circle(np.ones(5))
    assert sts_metrics(same, same, np.arange(5.0)) == {"cosine_spearman": 0, "cosine_pearson": 0}


def test_bad_input_is_named():
    vectors = _on_the_circle(np.arange(3.0))
    with pytest.raises(ValueError, match="3 and 2 vectors and 3 scores"):
        sts_metrics(vectors, vectors[:2], np.arange(3.0))
    with pytest.raises(ValueError, match=r"all gold scores are 1\.0"):
        sts_metrics(vectors, vectors, np.ones(3))
    broken = vectors.copy()
    broken[1, 0] = np.inf
    with pytest.raises(ValueError, match="pair 1"):
        sts_metrics(broken, vectors, np.arange(3.0))
