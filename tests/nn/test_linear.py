"""Products that are added up over the tensor axis: how many sums, in what, and how close."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.nn.linear import contract, contract_each, tensor_sums
from lco_jax.runtime.axes import act_spec, weight_spec
from tests import meshes

SIZES = {"B": 4, "S": 6, "D": 16, "N": 8, "K": 4, "H": 8}
EQUATIONS = ("BSD,DNH->BSNH", "BSD,DKH->BSKH", "BSD,DKH->BSKH")


def array(letters, spec, seed, dtype):
    shape = [SIZES[letter] for letter in letters]
    # Weights as small as a model's: products neither grow nor shrink.
    scale = 1.0 if spec is act_spec else SIZES["D"] ** -0.5
    values = np.random.default_rng(seed).normal(scale=scale, size=shape).astype(dtype)
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


def add_up(x, weights):
    """What comes back to the width of `x`: a sum over heads, and so is the gradient of `x`."""
    query, *_ = contract_each(x, weights, EQUATIONS)
    return (contract(jnp.sin(query), weights[0], "BSNH,DNH->BSD"),)


def test_sums_in_bfloat16_are_as_close_as_its_numbers():
    def on(sizes, sums):
        with jax.set_mesh(meshes.make(sizes)), tensor_sums(sums):
            return gradients(add_up, jnp.bfloat16)[0]

    exact = on((1, 1, 1), "float32")
    distance = {
        sums: np.linalg.norm(on((1, 2, 4), sums) - exact) for sums in ("float32", "bfloat16")
    }
    # Each of 4 parts is rounded to 8 bits before they are added, or only their sum.
    assert distance["float32"] < 2**-10 * np.linalg.norm(exact)
    assert distance["float32"] < distance["bfloat16"] < 2**-7 * np.linalg.norm(exact)


def test_only_what_crosses_devices_is_rounded_before_it_is_added_up():
    def dtypes(sums):
        with jax.set_mesh(meshes.make((1, 1, 4))), tensor_sums(sums):
            x = array("BSNH", act_spec, 0, jnp.bfloat16)
            weight = array("DNH", weight_spec, 1, jnp.bfloat16)

            def total(x):
                return contract(x, weight, "BSNH,DNH->BSD").astype(jnp.float32).sum()

            text = str(jax.make_jaxpr(jax.grad(total))(x))
        return re.findall(r"preferred_element_type=(\w+)", text)

    # Forward a sum over heads; the gradients of neither operand are sums over the tensor axis.
    assert dtypes("float32") == ["float32", "float32", "float32"]
    assert dtypes("bfloat16") == ["bfloat16", "float32", "float32"]
