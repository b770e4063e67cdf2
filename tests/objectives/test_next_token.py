"""Next-token loss in blocks against all logits at once: values, gradients, memory."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lco_jax.models.config import ModelConfig, TextConfig
from lco_jax.models.omni import OmniModel
from lco_jax.objectives.next_token import next_token_sums
from tests import meshes

THIN = TextConfig(
    vocab_size=152_064,
    num_layers=1,
    hidden_size=16,
    intermediate_size=16,
    num_heads=4,
    num_kv_heads=4,
    head_dim=4,
    rope_theta=1e4,
    mrope_section=None,
    norm_eps=1e-6,
    tie_embeddings=True,
)


def make_model(tied, vocab_size=72):
    text = dataclasses.replace(THIN, tie_embeddings=tied, vocab_size=vocab_size)
    model = OmniModel(ModelConfig("qwen2", text), with_head=True, rngs=nnx.Rngs(params=0))
    return nnx.split(model)


def plain_sums(model, hidden, targets):
    """All logits at once, from jax's own functions."""
    table = model.embed.table[...].T if model.config.tie_embeddings else model.head.kernel[...]
    logits = jnp.einsum("BSD,DV->BSV", hidden, table, precision="highest")
    log_probs = jax.nn.log_softmax(logits)
    chosen = jax.nn.one_hot(targets, logits.shape[-1])  # zeros where nothing is learned
    return -(chosen * log_probs).sum(), (logits.argmax(-1) == targets).sum()


def blocked_sums(model, hidden, targets, head_tokens):
    return next_token_sums(hidden, targets, model.logits_fn(), head_tokens=head_tokens)


def data(rows, length, vocab_size=72, share=0.8):
    """States, and the targets of that share of them."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(rows, length, THIN.hidden_size)).astype(np.float32)
    targets = rng.integers(0, vocab_size, (rows, length)).astype(np.int32)
    return hidden, np.where(rng.random((rows, length)) < share, targets, -1)


def on(mesh, array, spec):
    return jax.device_put(array, jax.NamedSharding(mesh, spec))


@pytest.mark.parametrize(
    ("tied", "sizes", "head_tokens", "share"),
    [
        (True, (1, 1, 1), 1, 0.8),
        (False, (1, 1, 1), 48, 0.8),
        (True, (1, 1, 1), 16, 0.1),
        pytest.param(True, (1, 4, 1), 12, 0.8, marks=pytest.mark.slow),
        (False, (2, 2, 2), 6, 0.8),
        pytest.param(False, (2, 2, 2), 4, 0.1, marks=pytest.mark.slow),
        pytest.param(True, (1, 2, 4), 16, 0.8, marks=pytest.mark.slow),
        (False, (1, 2, 4), 10_000, 0.8),
        (False, (1, 2, 1), 16, 0.0),
    ],
    ids=str,
)
def test_blocks_equal_the_whole(tied, sizes, head_tokens, share):
    hidden, targets = data(8, 12, share=share)
    assert share == 0.8 or (targets < 0).all(1).any()  # a row that learns nothing
    graph, params = make_model(tied)

    def loss(fn, params, hidden, targets, *rest):
        return fn(nnx.merge(graph, params), hidden, targets, *rest)[0]

    correct = plain_sums(nnx.merge(graph, params), jnp.asarray(hidden), jnp.asarray(targets))[1]
    expected, expected_gradient = jax.value_and_grad(
        lambda p, h: loss(plain_sums, p, h, targets), (0, 1)
    )(params, jnp.asarray(hidden))
    mesh = meshes.make(sizes)
    with jax.set_mesh(mesh):
        graph, params = make_model(tied)  # the same values, on this mesh
        rows = jax.P(("data", "fsdp"))
        arguments = params, on(mesh, hidden, rows), on(mesh, targets, rows)
        run = jax.jit(
            jax.value_and_grad(lambda p, h, t: loss(blocked_sums, p, h, t, head_tokens), (0, 1))
        )
        found, gradient = run(*arguments)
        sums = jax.jit(lambda p, h, t: blocked_sums(nnx.merge(graph, p), h, t, head_tokens))(
            *arguments
        )
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert float(sums.correct) == float(correct)
    for one, other in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-6)


def test_blocks_without_targets_are_left_out(single_device_mesh):
    hidden, targets = data(4, 32, share=0.2)
    blocks = math.ceil((targets >= 0).sum(1).max() / 2)  # of two tokens of each row
    assert 2 < blocks < 32 / 2
    for row, learned in zip(hidden, targets >= 0, strict=True):
        row[np.flatnonzero(~learned)[2 * blocks - learned.sum() :]] = np.nan
    graph, params = make_model(True)

    def gradient(head_tokens):
        def loss(hidden, targets):
            model = nnx.merge(graph, params)
            return blocked_sums(model, hidden, targets, head_tokens).loss

        arguments = (on(single_device_mesh, x, jax.P()) for x in (hidden, targets))
        return jax.jit(jax.grad(loss))(*arguments)

    np.testing.assert_array_equal(gradient(8)[np.isnan(hidden)], 0)
    assert np.isfinite(gradient(8)).all()
    assert np.isnan(gradient(10_000)).any()


def test_memory_is_a_fraction_of_the_plain_version(single_device_mesh):
    """Vocabulary 152k, 8 x 2048 tokens: all logits would take 10 GB."""
    here = jax.NamedSharding(single_device_mesh, jax.P())
    graph, params = make_model(True, THIN.vocab_size)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), params)
    hidden = jax.ShapeDtypeStruct((8, 2048, THIN.hidden_size), jnp.float32, sharding=here)
    targets = jax.ShapeDtypeStruct((8, 2048), jnp.int32, sharding=here)

    def temporary_bytes(fn):
        def loss(params, hidden, targets):
            return fn(nnx.merge(graph, params), hidden, targets)[0]

        lowered = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, hidden, targets)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    plain = temporary_bytes(plain_sums)
    blocked = temporary_bytes(lambda *arguments: blocked_sums(*arguments, 512))
    assert plain > 8 * 2048 * THIN.vocab_size * 4
    assert blocked < plain / 4
    print(f"plain {plain / 1e9:.2f} GB, blocked {blocked / 1e9:.2f} GB")
