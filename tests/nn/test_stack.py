"""Stacks whose layers differ in kind, against running their layers one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.nn.stack import scan_kinds
from tests import meshes

FNS = {
    "sine": lambda layer, x: x + jnp.sin(x @ layer["w"]),
    "square": lambda layer, x: x - (x @ layer["w"]) ** 2 / 9,
}
"""Their order matters."""
S, Q = "sine", "square"
PATTERNS = {
    "one period after the other": ([S, S, Q] * 2, 2),
    "one kind": ([S] * 4, 1),
    "no period": ([Q, S, S, Q, S], 4),
    "a single layer": ([Q], 1),
}


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("case", PATTERNS)
def test_values_gradients_and_how_often_a_layer_is_written(case, remat):
    kinds, written = PATTERNS[case]
    rng = np.random.default_rng(0)
    weights = 0.3 * rng.normal(size=(len(kinds), 4, 4)).astype(np.float32)
    x = rng.normal(size=(3, 4)).astype(np.float32)

    def one_by_one(weights):
        y = x
        for weight, kind in zip(weights, kinds, strict=True):
            y = FNS[kind]({"w": weight}, y)
        return y.sum()

    def scanned(weights):
        return scan_kinds(FNS, {"w": weights}, jnp.asarray(x), kinds=kinds, remat=remat).sum()

    with jax.set_mesh(meshes.make((1, 1, 1))):
        weights = jax.device_put(weights, jax.P())
        expected = jax.value_and_grad(one_by_one)(weights)
        found = jax.jit(jax.value_and_grad(scanned))(weights)
        text = str(jax.make_jaxpr(scanned)(weights))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) < 2e-6 * np.linalg.norm(other)
    assert text.count("dot_general[") == written
