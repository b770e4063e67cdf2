"""The last layer, computed for pooled tokens alone, against the plain way round."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from lco_jax.config import Lora
from lco_jax.models.config import ModelConfig, TextConfig
from lco_jax.models.omni import OmniModel
from lco_jax.runtime.axes import act_spec
from tests import meshes

PREAMBLE = np.arange(3, 8, dtype=np.int32)
LAYERS = 3
SIZES = ModelConfig("qwen2", TextConfig(
    vocab_size=100, num_layers=LAYERS, hidden_size=16, intermediate_size=24, num_heads=4,
    num_kv_heads=2, head_dim=8, rope_theta=1e4, mrope_section=None, norm_eps=1e-6,
    tie_embeddings=True,
))  # fmt: skip


def make_rows(rng, rows=4, length=24):
    """Rows of three items each, some padding, and the last tokens of all items."""
    bounds = np.sort(rng.permuted(np.tile(np.arange(3, length), (rows, 1)), axis=1)[:, :3], axis=1)
    places = np.arange(length)
    before = (places[None, :, None] >= bounds[:, None]).sum(-1)
    first = np.arange(rows)[:, None] * 3 + 1
    segments = np.where(before < 3, first + before, 0)
    starts = np.concatenate([np.zeros((rows, 1), int), bounds], axis=1)
    positions = places - np.take_along_axis(starts, before, axis=1) + len(PREAMBLE)
    tokens = rng.integers(0, 100, (rows, length))
    arrays = (tokens, np.repeat(positions[..., None], 3, axis=-1), segments)
    return *(x.astype(np.int32) for x in arrays), (bounds - 1).astype(np.int32)


@pytest.fixture(scope="module")
def expected():
    return run(False, (1, 1, 1), "none")


@pytest.mark.parametrize(
    ("sizes", "remat"), [((1, 1, 1), "none"), ((2, 1, 2), "dots"), ((1, 1, 1), "full")], ids=str
)
def test_values_taps_and_gradients(expected, sizes, remat):
    found = run(True, sizes, remat)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) <= 3e-6 * np.linalg.norm(other)
    assert len(found[0][1][1]) == LAYERS + 1


def run(skips, sizes, remat):
    """Values, taps and gradients."""
    tokens, positions, segments, last = make_rows(np.random.default_rng(0))
    with jax.set_mesh(meshes.make(sizes)):
        model = OmniModel(SIZES, lora=Lora(rank=2, alpha=2, dropout=0.25), rngs=nnx.Rngs(0))
        graph, factors, frozen = nnx.split(model, nnx.LoRAParam, ...)
        # Larger ones, of which none is zero, so that layers matter and no gradient is hidden.
        frozen = jax.tree.map(lambda x: 5 * x if x.ndim > 2 else x, frozen)
        factors = jax.tree.map(lambda x: x + 0.1, factors)
        rows = [jax.device_put(x, act_spec("B S")) for x in (tokens, positions, segments)]
        index = jax.device_put(last, act_spec("B X"))
        model = functools.partial(_pooled, graph, skips, remat, rows, index)
        value = jax.jit(jax.value_and_grad(model, has_aux=True))(factors, frozen)
        return jax.tree.map(np.asarray, value)


def _pooled(graph, skips, remat, rows, index, factors, frozen):
    def pool(x):
        spec = jax.typeof(x).sharding.spec
        return jax.shard_map(
            lambda x, index: jax.vmap(lambda row, at: row[at])(x, index),
            in_specs=(spec, act_spec("B X")),
            out_specs=spec,
        )(x, index)

    model = nnx.merge(graph, factors, frozen)
    hidden, taps = model(
        *rows,
        preamble=PREAMBLE,
        dropout_key=jax.random.key(0),
        remat=remat,
        tap=lambda x: x.sum(axis=(0, 1)),
        pool=pool,
        skips=skips,
    )
    return (hidden**2).sum() + taps.sum(), (hidden, taps)
