"""What a layer sends over the tensor axis, in the program of the TPU compiler."""

import collections
import dataclasses
import importlib.util

import jax
import pytest

from lco_jax.config import Lora, Memory, MeshConfig
from lco_jax.plan.abstract import abstract_run
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import costs
from lco_jax.plan.topologies import find_topology
from lco_jax.runtime import mesh as meshes
from tests import runs, tiny

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu]'"
)
LAYERS, TENSOR = 4, 4


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """Arrays that a step sends between the devices of a group of the tensor axis: how often, by
    kind of collective, dtype and shape; and the shape of the states of a shard.
    """
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2", num_layers=LAYERS, num_kv_heads=4)
    config = runs.make_config(folder, folder / "none.jsonl")
    trainable = Lora(rank=4, alpha=8, dropout=0.0)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dtype="bfloat16", trainable=trainable),
        memory=Memory(row_tokens=(128,), remat="full"),
        mesh=MeshConfig(2, 1, TENSOR, tensor_sums="bfloat16"),
    )
    devices = find_topology("v5e:2x4").devices
    jax.config.update("jax_default_matmul_precision", None)
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        with jax.set_mesh(meshes.make_mesh(config.mesh, devices)):
            run = abstract_run(config)
            compiled = run.step.lower(run.state, run.batch, run.preamble).compile()
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
        jax.config.update("jax_default_matmul_precision", "highest")
    found = collections.Counter()
    for cost in costs(Program(compiled.as_text())):
        if cost.collective and cost.collective.group_size != 2:
            for shape in cost.instruction.shapes:
                kind = cost.instruction.opcode.removesuffix("-start")
                found[kind, shape.dtype, shape.dims] += round(cost.times)
    _, rows, length = run.batch.tokens.shape
    return found, (rows // 2, length, run.model.text.hidden_size)


def test_states_travel_in_their_own_dtype_as_often_as_a_layer_needs(sums):
    found, states = sums
    wide = {key: count for key, count in found.items() if key[2] == states}
    # Attention and feed-forward: the output of each forward and the gradient of its input
    # backward, and the output of attention again where it is computed again. All layers but the
    # last, of which there is only the gradient that enters attention; and the embeddings, whose
    # vocabulary is divided.
    assert wide == {("all-reduce", "bf16", states): 5 * (LAYERS - 1) + 1 + 1}


def test_nothing_is_brought_together(sums):
    found, _ = sums
    assert {kind for kind, _, _ in found} == {"all-reduce"}
