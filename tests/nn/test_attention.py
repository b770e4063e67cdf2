"""Attention, whose backward pass is written by hand, against the formula and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.nn.attention import attend, causal_mask, row_mask
from lco_jax.nn.flowing_attention import _WIDTH_STEP, NearRows, near_rows
from lco_jax.nn.widths import widths
from lco_jax.runtime.axes import act_spec
from tests import meshes

ROWS, LENGTH, HEADS, KV_HEADS, WIDTH, PREAMBLE = 2, 12, 4, 2, 8, 5


def formula(query, key, value, mask, preamble):
    if preamble is not None:
        key, value = (
            jnp.concatenate([jnp.repeat(shared, ROWS, 0), own], 1)
            for shared, own in zip(preamble, (key, value), strict=True)
        )
        mask = jnp.concatenate([jnp.ones((ROWS, LENGTH, PREAMBLE), bool), mask], -1)
    key, value = (jnp.repeat(x, HEADS // KV_HEADS, 2) for x in (key, value))
    scores = jnp.einsum("bsnh,btnh->bnst", query, key) / np.sqrt(WIDTH)
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bnst,btnh->bsnh", weights, value)


@pytest.mark.parametrize("with_preamble", [True, False], ids=["preamble", "no preamble"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 2, 2)], ids=str)
def test_values_and_gradients(sizes, with_preamble):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    heads = [draw(ROWS, LENGTH, n, WIDTH) for n in (HEADS, KV_HEADS, KV_HEADS)]
    preamble = [draw(1, PREAMBLE, KV_HEADS, WIDTH) for _ in range(2)] if with_preamble else None
    segments = np.sort(rng.integers(1, 4, (ROWS, LENGTH)), axis=1).astype(np.int32)
    weights = draw(ROWS, LENGTH, HEADS, WIDTH)

    def run(attention, place):
        def loss(heads, preamble):
            context = attention(*heads, causal_mask(place(segments, "B S")), preamble)
            return jnp.sum(context * place(weights, "B S N H")), context

        placed = [place(x, f"B S {n} H") for x, n in zip(heads, "NKK", strict=True)]
        shared = preamble and [place(x, "X X K H") for x in preamble]
        gradients, context = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(placed, shared)
        return jax.tree.leaves(jax.tree.map(np.asarray, (context, gradients)))

    expected = run(formula, lambda x, _: jnp.asarray(x))
    with jax.set_mesh(meshes.make(sizes)):
        found = run(attend, lambda x, letters: jax.device_put(x, act_spec(letters)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("has_preamble", [True, False], ids=["preamble", "none"])
@pytest.mark.parametrize("length", [16, 256], ids=["whole rows", "blocks of rows"])
def test_items_that_run_on_from_row_to_row(length, has_preamble):
    """Values and gradients are those of each shard's rows as a single one."""
    rows, shards = 4, 2
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    heads = [draw(rows, length, n, WIDTH) for n in (HEADS, KV_HEADS, KV_HEADS)]
    preamble = [draw(1, PREAMBLE, KV_HEADS, WIDTH) for _ in range(2)]
    weights = draw(rows, length, HEADS, WIDTH)
    # In each shard items of up to a row, the last one cut short, and padding.
    lengths = rng.integers(length // 3, length + 1, (shards, 3 * rows))
    numbers = 1 + np.arange(lengths.size).reshape(lengths.shape)
    segments = np.stack(
        [np.repeat(*part)[: rows // shards * length] for part in zip(numbers, lengths, strict=True)]
    )
    segments[:, -5:] = 0

    def run(sizes, shape, flows):
        def loss(heads, preamble, segments, weights):
            mask = row_mask(segments, WIDTH, flows=flows)
            assert isinstance(mask, NearRows) == (flows and length >= 256)
            context = attend(*heads, mask, preamble if has_preamble else None)
            return jnp.sum(context * weights), context

        def place(x, letters):
            return jax.device_put(x.reshape(*shape, *x.shape[2:]), act_spec(letters))

        with jax.set_mesh(meshes.make(sizes)):
            placed = [place(x, f"B S {n} H") for x, n in zip(heads, "NKK", strict=True)]
            shared = [jax.device_put(x, act_spec("X X K H")) for x in preamble]
            rest = place(segments, "B S"), place(weights, "B S N H")
            step = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
            (own, of_preamble), context = step(placed, shared, *rest)
        own = [np.asarray(x).reshape(rows, length, -1) for x in (*own, context)]
        return [*own, *map(np.asarray, of_preamble)]

    expected = run((1, 1, 1), (shards, rows // shards * length), False)
    found = run((shards, 1, 2), (rows, length), True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 if length > 100 else 1e-5)


def test_blocks_of_rows_meet_few_keys():
    """As many as reach back to the start of the item that a block begins in."""
    rng = np.random.default_rng(3)
    ends = np.cumsum(rng.integers(20, 200, 60))
    segments = np.searchsorted(ends, np.arange(4 * 512), side="right").reshape(4, 512) + 1
    with jax.set_mesh(meshes.make((1, 1, 1))):
        rows = row_mask(jax.device_put(segments, act_spec("B S")), WIDTH, flows=True)
    count, length, reach = rows.bias.shape
    met = np.array(widths(length, reach, _WIDTH_STEP))[np.asarray(rows.kinds)]
    sees = np.asarray(rows.bias) == 0
    for width, own in zip(met, sees, strict=True):
        assert not own[:, : reach - width].any()
    assert met.mean() < 0.6 * reach
    assert count * length == segments.size
    empty = near_rows(jnp.zeros((2, length, reach), bool))
    assert (np.asarray(empty.kinds) == 0).all()


@pytest.mark.parametrize(("length", "reach"), [(128, 384), (160, 480), (256, 4352), (128, 128)])
def test_numbers_of_keys_are_few_and_end_with_all(length, reach):
    found = widths(length, reach, 64)
    assert list(found) == sorted(set(found))
    assert found[0] == length
    assert found[-1] == reach
    assert len(found) <= 24
