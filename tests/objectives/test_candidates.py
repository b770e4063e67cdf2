"""Gathered, chunked and ring: one loss and one gradient, whatever is masked."""

import jax
import numpy as np
import pytest

from lco_jax.config import Contrastive, Memory
from lco_jax.objectives.candidates import choose_exchange
from lco_jax.objectives.contrastive import contrastive_loss
from lco_jax.runtime.axes import act_spec
from tests import meshes
from tests.objectives.test_contrastive import CONFIGS, make_batch, oracle

EVERYTHING = Contrastive(
    temperature=0.1,
    symmetric=True,
    mask_duplicates=True,
    false_negative_margin=0.3,
    matryoshka_dims=(4,),
)
WAYS = {
    "chunks": Memory(candidates="gathered", logit_chunks=3),
    "ring": Memory(candidates="ring"),
}


def run(batch, config, memory, sizes):
    """Loss, metrics and gradient with the batch sharded over a mesh."""
    with jax.set_mesh(meshes.make(sizes)):
        letters = ("C J I D", "C J I", "C J I X")
        arrays = [jax.device_put(x, act_spec(spec)) for x, spec in zip(batch, letters, strict=True)]

        def loss(pooled):
            return contrastive_loss(pooled, *arrays[1:], config, memory)

        (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays[0])
        return float(value), {k: float(v) for k, v in metrics.items()}, np.asarray(gradient)


def idle(batch):
    """The batch with some slots of it idle, as in an uneven share."""
    pooled, valid, content = batch
    valid = valid.copy()
    valid[0, :, 3] = valid[1, :, 7] = False
    return pooled, valid, content


# One mesh for each option, all meshes for all options together.
CASES = [(EVERYTHING, (2, 2, 2))]
CASES += [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in (
        *((config, (2, 2, 2)) for config in CONFIGS.values()),
        *((EVERYTHING, sizes) for sizes in ((1, 4, 1), (8, 1, 1))),
    )
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("config", "sizes"), CASES)
def test_equals_the_plain_twin(config, way, sizes):
    batch = idle(make_batch(roles=4, duplicates=True))
    value, metrics, gradient = run(batch, config, Memory(candidates="gathered"), (1, 1, 1))
    found, found_metrics, found_gradient = run(batch, config, WAYS[way], sizes)
    assert found == pytest.approx(value, rel=1e-6)
    error = np.linalg.norm(found_gradient - gradient)
    assert error <= 1e-6 * np.linalg.norm(gradient)
    assert found_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", CONFIGS)
def test_idle_slots_do_not_exist(name):
    pooled, valid, content = make_batch(chunks=1, duplicates=True)
    value, metrics, _ = run((pooled, valid, content), CONFIGS[name], Memory(), (1, 1, 1))
    keep = np.insert(np.arange(8), [2, 8], 0)  # slots 2 and 9 hold copies that nobody may see
    wider = [x[:, :, keep].copy() for x in (pooled, valid, content)]
    wider[1][:, :, [2, 9]] = False
    found, found_metrics, gradient = run(wider, CONFIGS[name], Memory(candidates="ring"), (2, 1, 1))
    assert found == pytest.approx(value, rel=1e-6)
    assert found == pytest.approx(oracle(pooled, valid, content, CONFIGS[name]), rel=1e-6)
    assert found_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-7)
    assert not gradient[:, :, [2, 9]].any()


def test_a_copy_of_all_candidates_is_made_only_while_it_is_small():
    width, shards = 3584, 64
    assert choose_exchange(1056, 2112, width, shards, 1) == "gathered"
    assert choose_exchange(65536, 131072, width, shards, 1) == "ring"
    assert choose_exchange(65536, 131072, width, shards, 64) == "gathered"
    assert choose_exchange(65536, 131072, width, 1, 1) == "gathered"
