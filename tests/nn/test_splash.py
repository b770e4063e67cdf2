"""The TPU kernel for long rows, interpreted on CPU, against plain attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.nn.attention import LongRows, attend, causal_mask, row_mask
from lco_jax.nn.splash import attend_long, splash_fits
from lco_jax.runtime.axes import act_spec
from tests import meshes

HEADS, KV_HEADS, WIDTH, PREAMBLE = 4, 2, 128, 14


def make(rows, length, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    bounds = np.sort(rng.choice(np.arange(1, length), (rows, 5)), axis=1)
    segments = (np.arange(length)[None, :, None] >= bounds[:, None]).sum(-1)  # 0 is padding
    keys = (draw(rows, length, KV_HEADS, WIDTH) for _ in range(2))
    preamble = (draw(1, PREAMBLE, KV_HEADS, WIDTH), draw(1, PREAMBLE, KV_HEADS, WIDTH))
    return draw(rows, length, HEADS, WIDTH), *keys, preamble, segments.astype(np.int32)


@pytest.mark.parametrize("with_preamble", [True, False], ids=["preamble", "no preamble"])
@pytest.mark.parametrize(
    ("length", "sizes"), [(512, (1, 1, 1)), (640, (1, 1, 1)), (512, (1, 2, 2))], ids=str
)
def test_values_and_gradients(length, sizes, with_preamble):
    *arrays, preamble, segments = make(2, length)
    weights = np.random.default_rng(1).normal(size=arrays[0].shape).astype(np.float32)
    preamble = preamble if with_preamble else None

    def run(attention, sizes):
        with jax.set_mesh(meshes.make(sizes)):
            place = lambda x, letters: jax.device_put(x, act_spec(letters))  # noqa: E731
            heads = [place(x, f"B S {n} H") for x, n in zip(arrays, "NKK", strict=True)]
            shared = preamble and tuple(
                jax.device_put(x, jax.P(None, None, "tensor")) for x in preamble
            )
            ids = place(segments, "B S")

            def loss(heads, shared):
                context = attention(*heads, ids, shared)
                return jnp.sum(context * place(weights, "B S N H")), context

            fn = jax.jit(jax.grad(loss, argnums=(0, 1) if shared else 0, has_aux=True))
            gradients, context = fn(heads, shared)
            return jax.tree.map(np.asarray, (context, gradients))

    plain = lambda q, k, v, ids, shared: attend(q, k, v, causal_mask(ids), shared)  # noqa: E731
    kernel = lambda *arguments: attend_long(*arguments, interpret=True)  # noqa: E731
    found, expected = run(kernel, sizes), run(plain, (1, 1, 1))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) < 2e-6 * np.linalg.norm(other)


def test_the_kernel_is_for_long_rows_on_tpus():
    assert [splash_fits(n, 128) for n in (128, 256, 512, 520, 1024)] == [0, 0, 1, 0, 1]
    assert [splash_fits(1024, width) for width in (32, 64, 72, 80)] == [0, 1, 0, 1]
    # Here, on CPU, the mask is an array.
    assert not isinstance(row_mask(jnp.zeros((1, 1024), jnp.int32), 128), LongRows)
