"""Spread measures on sets whose spread is known."""

import numpy as np
import pytest

from lco_jax.analysis.anisotropy import effective_rank, mean_cosine


def _gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


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
