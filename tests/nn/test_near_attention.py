"""What CPUs do to attend within rows, against attention of all of a row to all."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.nn import near_attention, row_attention, short_attention
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
def test_near_keys_are_all_that_count(sizes, kind):
    segments = _segments(kind)
    check(segments.reshape(2, 2, LONG // 2), row_attention.attend_in_rows, sizes)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("length", [128, 384])
def test_short_rows_with_heads_first(monkeypatch, sizes, length, dtype):
    """Some rows at a time, and (of 384) one."""
    monkeypatch.setattr(short_attention, "MAX_SCORES", 4 * 128**2)
    segments = np.sort(np.random.default_rng(2).integers(0, 4, (2, LONG // length, length)))
    check(segments.astype(np.int32), row_attention.attend_in_rows, sizes, dtype)


def check(rows, attend, sizes, dtype=np.float32):
    """`attend` does what comparing all of a row does, and so do its gradients."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 2, LONG, 2, 8)).astype(np.float32)
    real = rows.reshape(2, LONG) > 0
    values[3] *= real[..., None, None]  # what padding gives means nothing

    def run(attend):
        def loss(arrays, own):
            context = attend(*arrays[:3], own).astype(jnp.float32)
            return (context * arrays[3]).sum(), context

        with jax.set_mesh(meshes.make(sizes)):
            arrays = tuple(jax.device_put(x.astype(dtype), act_spec("G P N H")) for x in values)
            own = jax.device_put(rows, act_spec("G K T"))
            found = jax.jit(jax.grad(loss, has_aux=True))(arrays, own)
            return jax.tree.map(lambda x: np.asarray(x, np.float32), found)

    (gradients, context), (expected, plain) = run(attend), run(row_attention._attend_in_pieces)
    tolerance = 1 if dtype == np.float32 else 2**16
    assert np.isfinite(context).all()
    np.testing.assert_allclose(context[real], plain[real], atol=1e-6 * tolerance)
    for one, other in zip(gradients[:3], expected[:3], strict=True):
        np.testing.assert_allclose(one, other, atol=5e-6 * tolerance)


def test_blocks_meet_few_keys_where_segments_lie_in_one_piece():
    counts = np.array(near_attention._widths(LONG))
    starts, kinds = near_attention._places(_segments("in one piece")[0])
    met = counts[np.asarray(kinds)]
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
