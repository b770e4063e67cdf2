"""Linear maps that read one input together: one sum of its gradient over the tensor axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.nn.linear import contract, contract_each
from lco_jax.runtime.axes import act_spec, weight_spec
from tests import meshes

SIZES = {"B": 4, "S": 6, "D": 16, "N": 8, "K": 4, "H": 8}
EQUATIONS = ("BSD,DNH->BSNH", "BSD,DKH->BSKH", "BSD,DKH->BSKH")


def array(letters, spec, seed, dtype):
    shape = [SIZES[letter] for letter in letters]
    values = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    return jax.device_put(
        values, jax.NamedSharding(jax.sharding.get_mesh(), spec(" ".join(letters)))
    )


def gradients(each, dtype):
    """Of the input and of the weights."""
    x = array("BSD", act_spec, 0, dtype)
    weights = tuple(
        array(equation.split(",")[1].split("->")[0], weight_spec, seed, dtype)
        for seed, equation in enumerate(EQUATIONS, 1)
    )

    def total(x, weights):
        # An odd function: all parts of the gradient differ.
        return sum(jnp.sin(y.astype(jnp.float32)).sum() for y in each(x, weights))

    found = jax.jit(jax.grad(total, (0, 1)))(x, weights)
    return jax.tree.map(lambda x: np.asarray(x.astype(jnp.float32)), found)


def together(x, weights):
    return contract_each(x, weights, EQUATIONS)


def apart(x, weights):
    return tuple(contract(x, w, equation) for w, equation in zip(weights, EQUATIONS, strict=True))


@pytest.mark.parametrize("sizes", meshes.SIZES)
def test_one_sum_is_the_sum_of_all(sizes):
    with jax.set_mesh(meshes.make(sizes)):
        found, expected = (gradients(each, jnp.float32) for each in (together, apart))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected
    )


def test_sums_in_bfloat16_are_as_close_as_its_numbers():
    with jax.set_mesh(meshes.make((1, 2, 4))):
        found, _ = gradients(together, jnp.bfloat16)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        exact, _ = gradients(together, jnp.bfloat16)
    # Each of 4 parts is rounded to 8 bits before they are added.
    assert np.linalg.norm(found - exact) < 2**-8 * np.linalg.norm(exact)
