"""Masks: how many entries they drop, and what they depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.nn.dropout import TokenDropout
from tests import meshes

RATE, WIDTH = 0.05, 4096
ITEMS = np.array([[1, 1, 1, 2, 2, 0, 7, 7]], np.int32)
POSITIONS = np.array([[0, 1, 2, 0, 1, 0, 0, 1]], np.int32)


def masks(items=ITEMS, positions=POSITIONS, *, seed=0, layer=0, place=0, rate=RATE, shape=(WIDTH,)):
    with jax.set_mesh(meshes.make((1, 1, 1))):
        dropout = TokenDropout(jax.random.key(seed), rate, jnp.array(items), jnp.array(positions))
        ones = jnp.ones((*items.shape, *shape))
        return np.asarray(dropout.in_layer(jnp.array(layer))(ones, place))


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_share_and_scale(rate):
    values = masks(rate=rate)
    assert np.unique(values) == pytest.approx([0, 1 / (1 - rate)])
    dropped = values == 0
    deviation = (rate * (1 - rate)) ** 0.5
    assert dropped.mean() == pytest.approx(rate, abs=4 * deviation / dropped.size**0.5)
    # Of every token and, over many tokens, of every entry.
    assert np.abs(dropped.mean(-1) - rate).max() < 5 * deviation / WIDTH**0.5
    items = np.arange(2000, dtype=np.int32)[None]
    entries = masks(items, np.zeros_like(items), rate=rate, shape=(64,)) == 0
    assert np.abs(entries.mean((0, 1)) - rate).max() < 5 * deviation / items.size**0.5


def test_a_mask_belongs_to_its_token():
    order = np.array([3, 0, 6, 1, 7, 2, 5, 4])
    moved = masks(ITEMS[:, order].reshape(2, 4), POSITIONS[:, order].reshape(2, 4))
    np.testing.assert_array_equal(moved.reshape(1, 8, WIDTH), masks()[:, order])
    np.testing.assert_array_equal(masks(shape=(64, 64)).reshape(1, 8, WIDTH), masks())


def test_masks_of_different_draws_have_nothing_in_common():
    draws = [masks(), masks(seed=1), masks(layer=1), masks(place=1)]
    dropped = np.concatenate([draw.reshape(-1, WIDTH) == 0 for draw in draws])
    correlation = np.corrcoef(dropped)
    assert np.abs(correlation - np.eye(len(dropped))).max() < 5 / WIDTH**0.5
    # Nor have neighbouring entries of a mask.
    assert np.abs(np.corrcoef(dropped[:, 1:].ravel(), dropped[:, :-1].ravel())[0, 1]) < 0.02
