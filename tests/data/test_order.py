"""The order of examples is Grain's, which decided it first: runs that go on read the same data."""

import grain
import numpy as np
import pytest

from lco_jax.data.sources.order import Passes, mix
from lco_jax.data.sources.shuffle import shuffle

SEEDS = (0, 7, 123_456_789, 2**32 - 1)


@pytest.mark.parametrize(
    # One, a few, both sides of the smallest block of the cipher, and larger ones.
    "size",
    [1, 2, 3, 10, 1000, 65_535, 65_536, 65_537, 65_538, 262_145, 10**6, 5 * 10**9],
)
def test_permutation_is_that_of_grain(size):
    random = np.random.default_rng(size).integers(0, size, 60)
    indices = np.unique(np.concatenate([np.arange(min(size, 60)), random, [size - 1]]))
    for seed in SEEDS:
        expected = grain.MapDataset.range(size).shuffle(seed=seed)
        found = shuffle(indices, size, seed)
        assert found.tolist() == [expected[index] for index in indices.tolist()]


def test_permutation_takes_each_number_once():
    for size in (10, 1000, 70_000):
        assert sorted(shuffle(np.arange(size), size, 5).tolist()) == list(range(size))


@pytest.mark.parametrize("batch_size", [1, 24])
def test_passes_are_those_of_grain(batch_size):
    size = 100
    passes = Passes(size, 3, 1, batch_size)
    seed = int(np.random.SeedSequence([3, 1]).generate_state(1)[0])
    expected = grain.MapDataset.range(size).shuffle(seed=seed)
    expected = expected.slice(slice(size // batch_size * batch_size)).repeat()
    places = np.array([*range(350), 10**12, 10**12 + 1])
    assert passes[places].tolist() == [expected[place] for place in places.tolist()]


@pytest.mark.parametrize(
    "weights",
    [(1.0,), (1.0, 1.0), (0.7, 0.2, 0.1), (3.0, 1.0, 2.5, 0.01), (1.0, 12_345.678)],
    ids=str,
)
def test_mixture_is_that_of_grain(weights):
    sources = [
        grain.MapDataset.range(np.iinfo(np.int64).max).map(lambda block, own=own: (own, block))
        for own in range(len(weights))
    ]
    expected = grain.MapDataset.mix(sources, weights)
    blocks = [*range(2000), 10**9, 10**12 + 7, 10**15 + 3]
    found = zip(*(part.tolist() for part in mix(np.array(blocks), weights)), strict=True)
    assert list(found) == [expected[block] for block in blocks]
