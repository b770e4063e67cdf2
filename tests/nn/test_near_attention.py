"""Attention of blocks to the keys near them, against attention of all to all."""

import itertools

import jax
import numpy as np
import pytest

from lco_jax.nn import near_attention, row_attention
from lco_jax.runtime.axes import act_spec
from tests import meshes

LONG = 1536


def _segments(kind: str) -> np.ndarray:
    """Two groups of rows of 768: numbers are those of a group."""
    rng = np.random.default_rng(1)
    if kind == "none":
        return np.zeros((2, LONG), np.int32)
    if kind == "one a row":
        return np.tile(np.repeat([1, 2], LONG // 2), (2, 1)).astype(np.int32)
    segments = np.zeros((2, LONG), np.int32)
    for group in range(2):
        number = 0
        for start in (0, LONG // 2):
            ends = start + np.sort(rng.choice(np.arange(1, 700), 7, replace=False))
            for first, end in zip([start, *ends[:-1]], ends, strict=True):
                number += 1
                segments[group, first:end] = number
    if kind == "scattered":  # pieces of a segment fill gaps far away
        for row in (slice(0, LONG // 2), slice(LONG // 2, LONG)):
            part = segments[:, row].reshape(2, -1, 16)
            segments[:, row] = part[:, rng.permutation(part.shape[1])].reshape(2, -1)
    return segments


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("kind", ["in one piece", "scattered", "one a row", "none"])
def test_near_keys_are_all_that_count(monkeypatch, sizes, kind):
    rng = np.random.default_rng(0)
    segments = _segments(kind)
    rows = segments.reshape(2, 2, LONG // 2)
    values = rng.normal(size=(4, 2, LONG, 2, 8)).astype(np.float32)
    values[3] *= (segments > 0)[..., None, None]  # what padding gives means nothing

    def loss(arrays, own):
        context = row_attention.attend_in_rows(*arrays[:3], own)
        return (context * arrays[3]).sum(), context

    def run(shortest):
        monkeypatch.setattr(row_attention, "_SHORTEST_ROW_OF_BLOCKS", shortest)
        with jax.set_mesh(meshes.make(sizes)):
            arrays = tuple(jax.device_put(x, act_spec("G P N H")) for x in values)
            own = jax.device_put(rows, act_spec("G K T"))
            return jax.tree.map(np.asarray, jax.jit(jax.grad(loss, has_aux=True))(arrays, own))

    (gradients, context), (expected, plain) = run(LONG // 2), run(LONG)
    assert np.isfinite(context).all()
    real = segments > 0
    np.testing.assert_allclose(context[real], plain[real], atol=1e-6)
    for one, other in zip(gradients[:3], expected[:3], strict=True):
        np.testing.assert_allclose(one, other, atol=5e-6)


def test_blocks_meet_few_keys_where_segments_lie_in_one_piece():
    widths = np.array(near_attention._widths(LONG))
    starts, kinds = near_attention._places(_segments("in one piece")[0])
    met = widths[np.asarray(kinds)]
    assert (np.asarray(starts) + met <= LONG).all()
    assert met.mean() < LONG / 4
    assert (np.asarray(near_attention._places(_segments("none")[0])[1]) == 0).all()


@pytest.mark.parametrize("length", [128, 256, 1152, 4096, 8320])
def test_widths_are_few_and_end_with_the_whole(length):
    widths = near_attention._widths(length)
    assert list(widths) == sorted(set(widths))
    assert widths[-1] == length
    assert all(after <= 2 * width for width, after in itertools.pairwise(widths))
    octaves_beyond_steps = max(0, (length - 1).bit_length() - 10)
    assert len(widths) <= 8 + 4 * octaves_beyond_steps
