"""The count of FLOPs and traffic, on programs for which both are known."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from lco_jax.config import MeshConfig
from lco_jax.nn.splash import attend_long
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import costs, hbm_bytes, matmul_flops
from lco_jax.plan.topologies import find_topology
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime.axes import act_spec

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu]'"
)

SIZE, STEPS = 2048, 8
PRODUCT = 2 * SIZE**3
MATRIX = 4 * SIZE**2
"""Bytes."""


@pytest.fixture(autouse=True)
def on_a_chip():
    jax.config.update("jax_default_matmul_precision", None)
    jax.config.update("jax_disable_most_optimizations", False)
    with jax.set_mesh(meshes.make_mesh(MeshConfig(1), find_topology("v5e:1x1").devices)):
        yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_default_matmul_precision", "highest")


def compile_text(function, *arrays):
    shardings = jax.NamedSharding(jax.sharding.get_mesh(), jax.P())
    shapes = [jax.ShapeDtypeStruct(*array, sharding=shardings) for array in arrays]
    return jax.jit(function).lower(*shapes).compile().as_text()


def matrices(count=None):
    return ((SIZE, SIZE) if count is None else (count, SIZE, SIZE)), jnp.float32


def test_a_product_reads_two_matrices_and_writes_one():
    program = Program(compile_text(jnp.dot, matrices(), matrices()))
    assert matmul_flops(program) == PRODUCT
    assert hbm_bytes(program) == pytest.approx(3 * MATRIX, rel=0.01)


def test_of_a_stack_one_layer_is_read():
    text = compile_text(lambda x, w: x @ w[-1], matrices(), matrices(64))
    assert hbm_bytes(Program(text)) == pytest.approx(3 * MATRIX, rel=0.01)


def test_a_loop_counts_as_often_as_it_runs_and_reads_a_slice_each_time():
    rows, layers = 8, 64
    text = compile_text(
        lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0],
        ((rows, SIZE), jnp.bfloat16),
        ((layers, SIZE, SIZE), jnp.bfloat16),
    )
    program = Program(text)
    assert matmul_flops(program) == layers * 2 * rows * SIZE * SIZE
    # The weights do not fit into the cache, the few rows of the state do.
    assert hbm_bytes(program) == pytest.approx(layers * MATRIX / 2, rel=0.01)


def test_results_of_a_loop_are_written_slice_by_slice():
    def step(x, _):
        x = jnp.sin(x)
        return x, x

    text = compile_text(lambda x: jax.lax.scan(step, x, None, 256)[1], ((SIZE, 128), jnp.float32))
    stacked = 256 * SIZE * 128 * 4
    assert hbm_bytes(Program(text)) == pytest.approx(stacked, rel=0.01)


def branches(x, weights, flags):
    def step(x, xs):
        weight, flag = xs
        with jax.named_scope("sometimes"):
            return jax.lax.cond(flag > 0, lambda: x @ weight, lambda: x), None

    return jax.lax.scan(step, x, (weights, flags))[0]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_conditional_counts_as_often_as_its_branch_runs(share):
    text = compile_text(branches, matrices(), matrices(STEPS), ((STEPS,), jnp.int32))
    assert matmul_flops(Program(text, {"sometimes": share})) == share * STEPS * PRODUCT
    # Nothing is known of another scope: the branch that does most counts each time, once.
    assert matmul_flops(Program(text, {"always": share})) == STEPS * PRODUCT
    traffic = [hbm_bytes(Program(text, {"sometimes": part})) for part in (0.0, share, 1.0)]
    assert traffic[1] == pytest.approx(traffic[0] + share * (traffic[2] - traffic[0]))


def test_of_two_branches_one_runs():
    def either(x, weights, flag):
        def twice():
            return x @ weights[0] @ weights[1]

        return jax.lax.cond(flag > 0, twice, lambda: x @ weights[0].T)

    text = compile_text(either, matrices(), matrices(2), ((), jnp.int32))
    assert matmul_flops(Program(text)) == 2 * PRODUCT


@pytest.mark.parametrize(("causal", "pairs"), [(False, 4), (True, 3)])
def test_the_attention_kernel(causal, pairs):
    """Of two blocks of a row, a causal mask leaves out one pair of four."""
    rows, length, heads, width, block = 2, 1024, 4, 128, 512
    mesh = jax.sharding.get_mesh()

    def array(letters, *shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(
            shape, dtype, sharding=jax.NamedSharding(mesh, act_spec(letters))
        )

    query = array("B S N H", rows, length, heads, width)
    key = array("B S K H", rows, length, heads // 2, width)
    segments = array("B S", rows, length, dtype=jnp.int32)

    def attend(*arrays):
        return attend_long(*arrays, causal=causal)

    def total(*arrays):
        return attend(*arrays).astype(jnp.float32).sum()

    def kernels(function):
        text = jax.jit(function).lower(query, key, key, segments).compile().as_text()
        return [c for c in costs(Program(text)) if "splash_mha" in c.instruction.op_name
                and c.instruction.opcode == "custom-call"]  # fmt: skip

    of_block = 2 * rows * heads * block * block * width
    (forward,) = kernels(attend)
    assert forward.flops == 2 * pairs * of_block
    assert sum(c.flops for c in kernels(jax.grad(total, (0, 1, 2)))) == 9 * pairs * of_block
