"""How batches are dealt to shards, and what padding makes of their texts."""

import numpy as np

from benchmarks.padding import deal, padded_lengths


def test_each_role_is_as_long_as_its_longest_text_on_the_shard():
    lengths = np.array([[1, 2, 3], [10, 20, 30], [4, 1, 1], [5, 60, 7], [2, 2, 2]])
    dealt = deal(lengths, 2)
    # Shard 0 has examples 0, 2 and 4; shard 1 has 1, 3 and a place that is left over.
    assert dealt.shape == (2, 3, 3)
    assert dealt.sum() == lengths.sum()
    np.testing.assert_array_equal(padded_lengths(dealt), [(4 + 2 + 3) / 3, (10 + 60 + 30) / 3])
