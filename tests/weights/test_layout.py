"""The algebra of layouts, against einsum and plain assignment."""

import numpy as np
import pytest
from einops import EinopsError

from lco_jax.weights.layout import Layout, copy_tiled

SIZES = {"D": 5, "N": 3, "H": 4, "F": 7, "R": 2}


@pytest.mark.parametrize(
    ("text", "hub_shape", "our_shape"),
    [
        ("(N H) D -> D N H", (12, 5), (5, 3, 4)),
        ("D (N H) -> N H D", (5, 12), (3, 4, 5)),
        ("(N H) -> N H", (12,), (3, 4)),
        ("F D -> D F", (7, 5), (5, 7)),
        ("D -> D", (5,), (5,)),
    ],
)
def test_shapes_and_round_trip(text, hub_shape, our_shape):
    layout = Layout(text)
    assert layout.hub_shape(SIZES) == hub_shape
    assert layout.our_shape(SIZES) == our_shape
    assert layout.sizes(our_shape).items() <= SIZES.items()
    hub = np.random.default_rng(0).normal(size=hub_shape)
    ours = layout.to_ours(hub, SIZES)
    assert ours.shape == our_shape
    assert np.shares_memory(ours, hub)
    np.testing.assert_array_equal(layout.to_hub(ours), hub)


def test_query_kernel_is_the_linear_map_by_heads():
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(12, 5)), rng.normal(size=5)
    kernel = Layout("(N H) D -> D N H").to_ours(weight, SIZES)
    np.testing.assert_allclose(np.einsum("d,dnh->nh", x, kernel).ravel(), weight @ x)


@pytest.mark.parametrize("text", ["(N H) D -> D N H", "D (N H) -> N H D", "F D -> D F"])
def test_lora_factors_multiply_to_the_hub_matrix(text):
    rng = np.random.default_rng(0)
    layout = Layout(text)
    out, inputs = layout.hub_shape(SIZES)
    a, b = rng.normal(size=(2, inputs)), rng.normal(size=(out, 2))
    layout_a, layout_b = layout.lora()
    ours = np.tensordot(layout_a.to_ours(a, SIZES), layout_b.to_ours(b, SIZES), (0, 0))
    np.testing.assert_allclose(layout.to_hub(ours), b @ a)


@pytest.mark.parametrize("text", ["D F", "D F -> D", "D -> D F", "F D -> (D F)", "D D -> D"])
def test_bad_layouts(text):
    with pytest.raises(ValueError, match="same letters"):
        Layout(text)


def test_sizes_that_do_not_fit():
    with pytest.raises(EinopsError):
        Layout("(N H) D -> D N H").to_ours(np.zeros((12, 5)), {**SIZES, "H": 3})


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0), (0, 2, 1)])
@pytest.mark.parametrize("shape", [(3, 130, 257), (1, 1, 300), (260, 2, 129), (0, 4, 5)])
def test_copy_tiled_is_assignment(shape, axes):
    source = np.random.default_rng(0).normal(size=shape).transpose(axes)
    target = np.full(source.shape, np.nan, np.float32)
    copy_tiled(target, source)
    np.testing.assert_array_equal(target, source.astype(np.float32))


def test_copy_tiled_takes_slices_vectors_and_scalars():
    source = np.arange(300 * 200).reshape(300, 200)
    target = np.zeros((50, 290), np.int64)
    copy_tiled(target, source.T[::4, 10:])
    np.testing.assert_array_equal(target, source.T[::4, 10:])
    for small in (np.arange(4), np.array(3)):
        copied = np.zeros_like(small)
        copy_tiled(copied, small)
        np.testing.assert_array_equal(copied, small)
