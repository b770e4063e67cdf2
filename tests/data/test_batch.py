"""Packing: nothing lost, nothing shared, everything where the index arrays say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import (
    Shape,
    choose_shape,
    item_lengths,
    measure,
    pack,
)
from lco_jax.data.pack.rounding import round_rows
from lco_jax.data.pack.rows import count_rows, place
from lco_jax.data.pack.stream import pack_texts

ROW_TOKENS = (16, 32, 64)
HEAD = 5


def make_items(rng, lengths):
    """Items of random tokens (never 0); None for length 0."""
    return [
        Encoded(rng.integers(1, 2**31 - 1, n, dtype=np.int32), rng.integers(2**64, dtype=np.uint64))
        if n
        else None
        for n in lengths
    ]


def check(batch, items, numbers, roles, num_shards):
    """Each item lies whole in one row of its shard, `pool` finds it, and nothing else is there."""
    chunks, rows, row_tokens = batch.tokens.shape
    examples = batch.pool.shape[-1]
    flat_items = iter(items)
    real_tokens = 0
    for chunk in range(chunks):
        shard_tokens = batch.tokens[chunk].reshape(num_shards, -1)
        shard_segments = batch.segments[chunk].reshape(num_shards, -1)
        shard_positions = batch.positions[chunk].reshape(num_shards, -1, 3)
        for example in range(examples):
            shard = example // (examples // num_shards)
            for role in range(roles):
                item = next(flat_items)
                assert batch.valid[chunk, role, example] == (item is not None)
                if item is None:
                    assert batch.pool[chunk, role, example] == 0
                    assert not batch.content[chunk, role, example].any()
                    continue
                last = batch.pool[chunk, role, example]
                where = slice(last - len(item.tokens) + 1, last + 1)
                assert where.start // row_tokens == last // row_tokens
                np.testing.assert_array_equal(shard_tokens[shard, where], item.tokens)
                segment = numbers[chunk, example] * roles + role + 1
                np.testing.assert_array_equal(shard_segments[shard, where], segment)
                assert np.count_nonzero(batch.segments == segment) == len(item.tokens)
                expected = HEAD + np.arange(len(item.tokens))
                np.testing.assert_array_equal(
                    shard_positions[shard, where], np.stack([expected] * 3, -1)
                )
                upper, lower = batch.content[chunk, role, example].tolist()
                assert (upper << 32) + lower == int(item.hash)
                real_tokens += len(item.tokens)
    padding = batch.segments == 0
    assert np.count_nonzero(~padding) == real_tokens
    assert not batch.tokens[padding].any() and not batch.positions[padding].any()
    assert np.count_nonzero(batch.segments) / batch.segments.size == pytest.approx(
        real_tokens / (chunks * rows * row_tokens)
    )


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, 3) for _ in range(3))),
    roles=st.integers(1, 4),
    longest=st.integers(1, 64),
    seed=st.integers(0, 2**32 - 1),
)
def test_pack(sizes, roles, longest, seed):
    chunks, num_shards, per_shard = sizes
    rng = np.random.default_rng(seed)
    shape = (chunks, num_shards * per_shard, roles)
    lengths = rng.integers(1, longest + 1, shape)
    lengths[..., 2:] *= rng.integers(0, 2, lengths[..., 2:].shape)  # negatives may be absent
    items = make_items(rng, lengths.ravel())
    numbers = rng.permutation(1000)[: chunks * shape[1]].reshape(shape[:2])
    np.testing.assert_array_equal(item_lengths(items), lengths.ravel())

    demand = measure(lengths, num_shards, ROW_TOKENS)
    chosen = choose_shape(demand, ROW_TOKENS)
    batch = pack(items, numbers, num_shards, chosen, HEAD)
    assert batch.tokens.shape == (chunks, num_shards * chosen.rows, chosen.row_tokens)
    check(batch, items, numbers, roles, num_shards)

    # A step may need a larger shape elsewhere; packing into it is as good.
    larger = Shape(ROW_TOKENS[-1], chosen.rows + 3)
    check(pack(items, numbers, num_shards, larger, HEAD), items, numbers, roles, num_shards)


def test_shape_rules():
    rng = np.random.default_rng(0)
    lengths = rng.integers(9, 11, (2, 40, 3))
    longest, *rows = measure(lengths, 4, ROW_TOKENS)
    assert longest == 10
    # A shard has 30 items of 9 and 10 tokens: one in a row of 16, three in one of 32.
    assert rows[:2] == [30, 10]
    assert choose_shape((10, 30, 10, 5), ROW_TOKENS) == Shape(32, 10)
    assert choose_shape((10, 30, 15, 8), ROW_TOKENS) == Shape(16, 30)  # the shortest of equal ones
    assert choose_shape((10, 30, 15, 7), ROW_TOKENS) == Shape(64, 7)
    assert choose_shape((40, 0, 0, 5), ROW_TOKENS).row_tokens == 64  # the longest item
    # What counts are the rows that there will be: 17 become 18.
    assert choose_shape((10, 35, 17, 9), ROW_TOKENS) == Shape(16, 36)
    with pytest.raises(ValueError, match=r"65 tokens.*rows of 64.*memory\.row_tokens"):
        choose_shape((65, 0, 0, 0), ROW_TOKENS)
    # The maximum over the parts of a step is the demand of the whole.
    parts = [measure(lengths[:, i : i + 10], 1, ROW_TOKENS) for i in range(0, 40, 10)]
    assert tuple(np.max(parts, axis=0)) == (longest, *rows)


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 64) | st.sampled_from([0, 7, 40, 41]), max_size=90))
def test_rows_are_counted_as_they_are_packed(lengths):
    lengths = np.array(lengths, np.int64)
    longest = lengths.max(initial=0)
    sizes = (*ROW_TOKENS, 256)
    expected = [place(lengths, size)[1] if size >= longest else 0 for size in sizes]
    assert count_rows(lengths, sizes) == expected


def test_rows_are_close_to_full():
    rng = np.random.default_rng(1)
    lengths = 15 + rng.lognormal(2.4, 0.5, (1, 300, 3)).astype(int)
    shape = choose_shape(measure(lengths, 1, (64, 128, 256)), (64, 128, 256))
    batch = pack(make_items(rng, lengths.ravel()), np.arange(300)[None], 1, shape, HEAD)
    assert np.count_nonzero(batch.segments) / batch.segments.size > 0.85


def test_grid_of_rows_is_small():
    grid = {round_rows(rows) for rows in range(1, 1025)}
    assert sorted(grid)[:24] == [*range(1, 17), 18, 20, 22, 24, 26, 28, 30, 32]
    assert len(grid) == 16 + 8 * 6
    for rows in range(1, 1025):
        assert rows <= round_rows(rows) <= rows * 1.125 + 1e-9


def test_too_few_rows_are_refused():
    items = make_items(np.random.default_rng(0), [10, 10])
    with pytest.raises(ValueError, match="needs 2 rows of 16"):
        pack(items, np.zeros((1, 1), int), 1, Shape(16, 1), HEAD)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 120),
    longest=st.integers(1, 64),
    num_shards=st.integers(1, 3),
    tokens_per_shard=st.sampled_from([1, 64, 200, 4096]),
    seed=st.integers(0, 2**32 - 1),
)
def test_stream(count, longest, num_shards, tokens_per_shard, seed):
    rng = np.random.default_rng(seed)
    items = make_items(rng, rng.integers(1, longest + 1, count))
    seen, shapes = [], {}
    for batch, indices in pack_texts(items, ROW_TOKENS, tokens_per_shard, num_shards, HEAD):
        chosen = [items[index] if index >= 0 else None for index in indices.tolist()]
        check(batch, chosen, indices[None], 1, num_shards)
        seen += [index for index in indices.tolist() if index >= 0]
        shapes.setdefault(batch.tokens.shape[-1], set()).add((batch.tokens.shape, batch.pool.shape))
        rows = batch.tokens.shape[1] // num_shards
        assert rows == 1 or rows * batch.tokens.shape[2] <= tokens_per_shard
    assert sorted(seen) == list(range(count))
    assert all(len(found) == 1 for found in shapes.values())


def test_stream_sizes_waste_little_and_agree_for_many_items():
    rng = np.random.default_rng(0)
    few, many = set(), set()
    for count in rng.integers(300, 9000, 25).tolist():
        items = make_items(rng, rng.integers(10, 40, count))
        batches = [batch for batch, _ in pack_texts(items, (64, 128), 16 * 128, 1, HEAD)]
        total = sum(batch.tokens.size for batch in batches)
        real = sum(np.count_nonzero(batch.segments) for batch in batches)
        assert real / total > 0.88
        (many if count > 3000 else few).add(batches[0].tokens.shape)
    assert many == {(1, 16, 128)}
    assert len(few) <= 8


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 120),
    longest=st.integers(1, 64),
    num_shards=st.integers(1, 3),
    tokens_per_shard=st.sampled_from([1, 64, 200, 4096]),
    seed=st.integers(0, 2**32 - 1),
)
def test_stream_through_rows(count, longest, num_shards, tokens_per_shard, seed):
    """Items that run on from row to row are those of the same rows in one."""
    rng = np.random.default_rng(seed)
    items = make_items(rng, rng.integers(1, longest + 1, count))
    seen, shapes = [], {}
    stream = pack_texts(items, ROW_TOKENS, tokens_per_shard, num_shards, HEAD, flows=True)
    for batch, indices in stream:
        length = batch.tokens.shape[2]
        chosen = [items[index] if index >= 0 else None for index in indices.tolist()]
        assert all(item is None or len(item.tokens) <= length for item in chosen)
        rows = {
            name: getattr(batch, name).reshape(1, num_shards, -1, *getattr(batch, name).shape[3:])
            for name in ("tokens", "segments", "positions")
        }
        check(batch._replace(**rows), chosen, indices[None], 1, num_shards)
        seen += [index for index in indices.tolist() if index >= 0]
        shapes.setdefault(length, set()).add((batch.tokens.shape, batch.pool.shape))
    assert sorted(seen) == list(range(count))
    assert all(len(found) == 1 for found in shapes.values())


def test_a_stream_through_rows_has_few_idle_slots():
    rng = np.random.default_rng(0)
    items = make_items(rng, rng.integers(10, 40, 4000))
    batches = [batch for batch, _ in pack_texts(items, (64, 128), 4096, 1, HEAD, flows=True)]
    assert {batch.tokens.shape[2] for batch in batches} == {64}
    real = sum(np.count_nonzero(batch.segments) for batch in batches)
    assert real / sum(batch.tokens.size for batch in batches) > 0.96


def test_stream_without_items_and_with_too_long_ones():
    assert list(pack_texts([], ROW_TOKENS, 64, 1, HEAD)) == []
    items = make_items(np.random.default_rng(0), [3, 70])
    with pytest.raises(ValueError, match="70 tokens"):
        next(pack_texts(items, ROW_TOKENS, 64, 1, HEAD))
