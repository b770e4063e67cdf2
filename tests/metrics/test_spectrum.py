"""Directions in use, on sets whose spectrum is known."""

import numpy as np
import pytest

from lco_jax.metrics.spectrum import effective_rank, isoscore


def _gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equal_directions(rank):
    vectors = np.tile(np.eye(8)[:rank], (5, 1))
    assert effective_rank(vectors) == pytest.approx(rank)


def test_effective_rank_is_invariant_to_rotation_and_falls_with_collapse():
    vectors = _gaussian(5, 60, 12)
    rotation, _ = np.linalg.qr(_gaussian(6, 12, 12))
    rank = effective_rank(vectors)
    assert effective_rank(vectors @ rotation) == pytest.approx(rank, rel=1e-5)
    assert 10 < rank <= 12
    narrow = [effective_rank(vectors + shift) for shift in (1, 10, 100)]
    assert rank > narrow[0] > narrow[1] > narrow[2] > 1


def test_effective_rank_is_the_exponential_of_the_entropy():
    # Two directions seen by 9 and by 1 vectors have the singular values 3 and 1.
    vectors = np.repeat(np.eye(2), [9, 1], axis=0)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank(vectors) == pytest.approx(np.exp(entropy))


def test_effective_rank_equals_that_of_the_singular_values():
    for seed, shape in enumerate([(50, 12), (12, 50), (9, 9)]):
        vectors = _gaussian(20 + seed, *shape) + 0.3
        unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        singular = np.linalg.svd(unit, compute_uv=False)
        share = singular / singular.sum()
        expected = np.exp(-np.sum(share * np.log(share)))
        assert effective_rank(vectors) == pytest.approx(expected, rel=1e-6)


def _isoscore_by_its_steps(vectors):
    """The published algorithm, step by step."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)
    variances = np.var(centred @ axes.T, axis=0, ddof=1)
    n = len(variances)
    scaled = np.sqrt(n) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    fraction = (n - defect**2 * (n - np.sqrt(n))) ** 2 / n**2
    return (n * fraction - 1) / (n - 1)


@pytest.mark.parametrize("seed", range(20))
def test_isoscore_equals_the_published_steps(seed):
    rng = np.random.default_rng(seed)
    count, width = rng.integers(4, 60), rng.integers(2, 30)
    vectors = rng.normal(size=(count, width)) * rng.uniform(0.1, 3, size=width) + 5
    assert isoscore(vectors) == pytest.approx(_isoscore_by_its_steps(vectors), abs=1e-9)


def test_isoscore_ends_of_the_scale():
    assert isoscore(np.concatenate([np.eye(6), -np.eye(6)])) == pytest.approx(1)
    line = np.linspace(-1, 1, 50)[:, None] * _gaussian(8, 1, 6).astype(np.float64)
    assert isoscore(line + 3) == pytest.approx(0, abs=1e-12)
    assert isoscore(np.ones((5, 6))) == 0
    # k of n equal dimensions: (k - 1) / (n - 1), which is linear in k.
    axes = np.concatenate([np.eye(6), -np.eye(6)])[:, :6]
    axes[:, 3:] = 0
    assert isoscore(axes) == pytest.approx(2 / 5)


def test_isoscore_does_not_depend_on_mean_scale_or_rotation():
    vectors = _gaussian(9, 80, 10).astype(np.float64)
    rotation, _ = np.linalg.qr(_gaussian(10, 10, 10).astype(np.float64))
    score = isoscore(vectors)
    assert isoscore(7 * vectors @ rotation + 100) == pytest.approx(score, abs=1e-9)


def test_isoscore_needs_two_of_each():
    with pytest.raises(ValueError, match="1 vectors of width 4"):
        isoscore(np.ones((1, 4)))
    with pytest.raises(ValueError, match="3 vectors of width 1"):
        isoscore(np.ones((3, 1)))
