"""Arithmetic of a step as the compiler counts it: a regression gate that needs no hardware.

Products with the decoder's N matrix weights cost 2 N a token forward and 2 N for the gradient of
the activations. A weight gradient of a frozen matrix would add 2 N, an output head 6 D V.
"""

import dataclasses
import math

import jax
import pytest

from lco_jax.config import Full, Lora
from lco_jax.plan.abstract import abstract_run
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import matmul_flops
from lco_jax.plan.useful_work import matrix_weights
from tests import meshes, runs, tiny

RANK = 2


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    # Of two layers, one would be left in the loop, and the compiler would take it out of there.
    tiny.write(folder, "qwen2_5_vl", num_layers=3)
    config = runs.make_config(folder, folder / "none.jsonl")
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, trainable=Lora(RANK, alpha=4), towers=())
    )


def flops_in_n(config) -> float:
    """Flops of a token in units of N, without attention's products, the low-rank ones, the loss."""
    with jax.set_mesh(meshes.make((1, 1, 1))):
        run = abstract_run(config)
        program = Program(run.step.lower(run.state, run.batch, run.preamble).compile().as_text())
    text = run.model.text
    size = text.sizes
    preamble, pooled = run.preamble.shape[0], math.prod(run.batch.pool.shape)
    is_lora = isinstance(config.model.trainable, Lora)
    heads, mlp = size["N"] * size["H"], 3 * size["D"] * size["F"]
    layer = matrix_weights(text) // size["L"]
    # Products of a weight and a token: of all layers but the last, and of the last, which with
    # frozen weights has keys and values alone for most tokens, and for them no gradient of others.
    before = (size["L"] - 1) * layer * (run.slots + preamble)
    last = layer * (run.slots + preamble)
    if is_lora:
        last -= (size["D"] * heads + mlp) * (run.slots - pooled)
        last -= (2 * size["D"] * heads + mlp) * preamble
    # Forward twice (scores, context), backward five times (the scores again); every query meets
    # all keys of its row.
    keys = run.slots * (run.shape.row_tokens + preamble)
    full = config.memory.remat == "full"
    products = (9 if full else 7) * (size["L"] - 1) + (7 if is_lora or not full else 9)
    attention = products * 2 * heads * keys
    attention += (9 if full else 7) * 2 * heads * preamble**2 * (size["L"] - is_lora)
    low_rank = 0
    if is_lora:
        of_query = size["D"] + heads
        of_keys = 2 * size["D"] + 2 * size["K"] * size["H"]
        of_rest = heads + size["D"] + 3 * (size["D"] + size["F"])
        every = (of_query + of_keys + of_rest) * (run.slots + preamble)
        own = (of_query + of_keys) * run.slots + of_keys * preamble + of_rest * pooled
        low_rank = 2 * RANK * ((4 if full else 3) * (size["L"] - 1) * every + 3 * own)
    triplets = config.data.batch_size
    loss = 3 * 2 * triplets * 2 * triplets * size["D"]
    return (matmul_flops(program) - attention - low_rank - loss) / (before + last)


def test_frozen_matrices_have_no_gradient_and_there_is_no_head(config):
    assert flops_in_n(config) == pytest.approx(4.0, rel=0.01)


def test_the_gate_sees_weight_gradients(config):
    full = dataclasses.replace(config.model, trainable=Full())
    assert flops_in_n(dataclasses.replace(config, model=full)) == pytest.approx(6.0, rel=0.01)


def test_the_gate_sees_recomputation(config):
    memory = dataclasses.replace(config.memory, remat="full")
    # All products of a layer but the last are computed again.
    assert 5.2 < flops_in_n(dataclasses.replace(config, memory=memory)) <= 6.01
