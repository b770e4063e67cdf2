"""The mean cosine of sets in which it is known."""

import numpy as np
import pytest

from lco_jax.metrics.anisotropy import (
    cosine_histogram,
    mean_cosine,
    mean_cosine_margin,
    unit_rows,
)


def _gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mean_nonzero_cosine(vectors):
    """Source: LCO-Emb released analysis script (sum of the strict lower triangle of the cosine
    matrix, divided by how many of its entries are not zero).
    """
    unit = unit_rows(vectors)
    lower = np.tril(unit @ unit.T, -1)
    return lower.sum() / max(np.count_nonzero(lower), 1)


def test_mean_cosine_is_the_mean_of_the_lower_triangle():
    vectors = _gaussian(0, 40, 7) + 0.5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.mean((unit @ unit.T)[np.tril_indices(40, -1)])
    assert mean_cosine(vectors) == pytest.approx(expected, abs=1e-6)


def test_mean_cosine_ends_of_the_scale():
    assert mean_cosine(_gaussian(1, 500, 64)) == pytest.approx(0, abs=2e-3)
    assert mean_cosine(np.tile(_gaussian(2, 1, 64), (500, 1))) == pytest.approx(1, abs=1e-12)
    assert mean_cosine(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-1)


def test_mean_cosine_of_a_planted_cone():
    # A direction of its own added to nearly orthogonal vectors: cos = c² for weight c.
    direction = np.zeros(4001)
    direction[-1] = 3.0
    vectors = np.concatenate([_gaussian(3, 300, 4000), np.zeros((300, 1))], axis=1)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) + direction
    assert mean_cosine(vectors) == pytest.approx(0.9, abs=1e-4)


def test_mean_cosine_needs_a_pair():
    with pytest.raises(ValueError, match="got 1 vectors"):
        mean_cosine(_gaussian(4, 1, 8))


def test_the_released_estimator_leaves_out_zeros():
    # Eight axes and their doubles: 8 pairs of cosine 1, and 112 pairs of cosine exactly 0.
    vectors = np.concatenate([np.eye(8), 2 * np.eye(8)])
    assert mean_nonzero_cosine(vectors) == 1
    assert mean_cosine(vectors) == pytest.approx(8 / 120)
    assert mean_nonzero_cosine(np.eye(8)) == 0


@pytest.mark.parametrize("count", [2, 7, 100])
def test_the_released_estimator_is_the_mean_cosine_otherwise(count):
    vectors = _gaussian(5, count, 7) + 0.5
    assert mean_nonzero_cosine(vectors) == pytest.approx(mean_cosine(vectors), abs=1e-12)


def test_the_margin_is_that_of_repeated_draws():
    """1.96 standard deviations of the mean cosine over samples from one distribution."""
    rng = np.random.default_rng(5)
    draws = [rng.normal(size=(60, 8)) + 0.6 for _ in range(400)]
    means = [mean_cosine(vectors) for vectors in draws]
    margins = [mean_cosine_margin(vectors) for vectors in draws]
    assert np.mean(margins) == pytest.approx(1.96 * np.std(means), rel=0.15)


def test_the_histogram_of_cosines_has_their_mean():
    vectors = _gaussian(6, 300, 5) + 0.7
    edges, density = cosine_histogram(vectors, bins=200)
    assert (edges[0], edges[-1]) == (-1, 1)
    assert density.sum() * (edges[1] - edges[0]) == pytest.approx(1)
    middles = (edges[1:] + edges[:-1]) / 2
    assert np.average(middles, weights=density) == pytest.approx(mean_cosine(vectors), abs=5e-3)
    fewer = cosine_histogram(vectors, most=10)[1]
    np.testing.assert_array_equal(fewer, cosine_histogram(vectors[:10])[1])
