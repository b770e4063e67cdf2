"""The decoder against transformers: states of every layer, embeddings, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lco_jax.config import Full
from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.weights.hub import load_params
from tests import tiny


def scaled(kind, factor, **others):
    """Rotary embeddings of which several pairs turn otherwise within the rows here."""
    if kind != "linear":
        others |= {"original_max_position_embeddings": 32}
    return {"rope_type": kind, "rope_theta": 1e4, "factor": factor, **others}


LLAMA3 = scaled("llama3", 8.0, low_freq_factor=1.0, high_freq_factor=4.0)
CASES = {
    "qwen2 tied": ("qwen2", True, 2, {}),
    "qwen2 untied, 1 kv head": ("qwen2", False, 1, {}),
    "vl": ("qwen2_5_vl", True, 2, {}),
    "vl untied, 4 kv heads": ("qwen2_5_vl", False, 4, {}),
    "omni thinker": ("qwen2_5_omni_thinker", False, 1, {}),
    "llama, 5 heads": (
        "llama",
        False,
        5,
        {"hidden_size": 40, "num_attention_heads": 5, "rope_parameters": LLAMA3},
    ),
    "llama, all biases": ("llama", True, 2, {"attention_bias": True, "head_dim": 6}),
    "mistral, 3 heads": (
        "mistral",
        False,
        1,
        {
            "hidden_size": 36,
            "num_attention_heads": 3,
            "head_dim": 10,
            "rope_parameters": scaled("linear", 2.0),
        },
    ),
    "qwen3, 9 heads": (
        "qwen3",
        True,
        3,
        {"num_attention_heads": 9, "rope_parameters": scaled("yarn", 4.0)},
    ),
    "qwen3 vl, 6 heads": ("qwen3_vl", True, 3, {"num_attention_heads": 6}),
    "qwen3 without biases": ("qwen3", False, 1, {"attention_bias": False}),
}
LINEARS = {"q": "query", "k": "key", "v": "value", "o": "output"}
MORE = (
    "llama, all biases",
    "mistral, 3 heads",
    "qwen3 vl, 6 heads",
    "qwen3 without biases",
)
LENGTHS = (11, 1, 7, 16)


@pytest.fixture(
    scope="module",
    params=[pytest.param(x, marks=[pytest.mark.slow] if x in MORE else []) for x in CASES],
)
def checkpoint(request, tmp_path_factory):
    family, tied, kv_heads, changes = CASES[request.param]
    folder = tmp_path_factory.mktemp("checkpoint")
    return tiny.write(folder, family, tied=tied, num_kv_heads=kv_heads, changes=changes)


def load(folder, trainable=None):
    config = read_config(folder)
    graph, train, frozen = build(config, trainable, "float32", with_head=True)
    return graph, load_params(folder, config, train or frozen)


def random_rows(seed=0):
    """Right-padded rows of uneven lengths, as torch and as we want them."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, tiny.VOCABULARY, (len(LENGTHS), max(LENGTHS))).astype(np.int32)
    real = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    segments = np.where(real, np.arange(1, len(LENGTHS) + 1)[:, None], 0).astype(np.int32)
    places = np.broadcast_to(np.arange(max(LENGTHS)), tokens.shape)
    positions = np.repeat(places[..., None], 3, -1).astype(np.int32)
    return np.where(real, tokens, 0), positions, segments, real


def torch_states(checkpoint, tokens, real):
    with torch.no_grad():
        out = checkpoint.decoder(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(real, dtype=torch.long),
            output_hidden_states=True,
        )
    return [state.numpy() for state in out.hidden_states]


def test_states_of_every_layer(checkpoint):
    tokens, positions, segments, real = random_rows()
    expected = torch_states(checkpoint, tokens, real)
    model = nnx.merge(*load(checkpoint.folder))
    run = jax.jit(lambda *arrays: model(*arrays, tap=lambda x: x))
    hidden, taps = run(tokens, positions, segments)
    for layer, state in enumerate(expected[:-1]):
        np.testing.assert_allclose(taps[layer][real], state[real], atol=1e-5 * (layer + 1))
    np.testing.assert_allclose(model.final_norm(hidden)[real], expected[-1][real], atol=1e-4)


def test_a_shared_preamble_equals_rows_that_begin_with_it(checkpoint):
    tokens, positions, segments, real = random_rows()
    preamble = np.array([5, 99, 4, 17, 3], np.int32)
    whole = np.concatenate([np.tile(preamble, (len(tokens), 1)), tokens], axis=1)
    expected = torch_states(checkpoint, whole, np.pad(real, ((0, 0), (5, 0)), constant_values=True))
    model = nnx.merge(*load(checkpoint.folder))
    hidden, _ = model(tokens, jnp.asarray(positions) + 5, segments, preamble=jnp.asarray(preamble))
    result = model.final_norm(hidden)
    np.testing.assert_allclose(result[real], expected[-1][:, 5:][real], atol=1e-4)


def test_gradient_of_the_next_token_loss(checkpoint):
    tokens, positions, segments, real = random_rows()
    labels = torch.tensor(np.where(real, tokens, -100), dtype=torch.long)
    checkpoint.model.zero_grad()
    out = checkpoint.model(
        input_ids=torch.tensor(tokens, dtype=torch.long),
        attention_mask=torch.tensor(real, dtype=torch.long),
        labels=labels,
    )
    out.loss.backward()
    graph, params = load(checkpoint.folder, Full())

    def loss_fn(params):
        model = nnx.merge(graph, params)
        hidden, _ = model(tokens, positions, segments)
        logits = model.logits(model.final_norm(hidden))[:, :-1]
        targets = jax.nn.one_hot(tokens[:, 1:], tiny.VOCABULARY)
        losses = -jnp.sum(jax.nn.log_softmax(logits) * targets, axis=-1)
        return jnp.where(real[:, 1:], losses, 0).sum() / real[:, 1:].sum()

    loss, gradient = jax.jit(jax.value_and_grad(loss_fn))(params)
    assert float(loss) == pytest.approx(out.loss.item(), rel=1e-5)
    parameters = dict(checkpoint.decoder.named_parameters())
    table = gradient["embed"]["table"]
    _same(table, parameters["embed_tokens.weight"].grad)
    attention, mlp = gradient["layers"]["attention"], gradient["layers"]["mlp"]
    for layer in range(3):
        name = f"layers.{layer}."
        for ours, hub in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            torch_weight = parameters[f"{name}self_attn.{hub}.weight"].grad
            kernel = attention[ours]["kernel"][layer]
            _same(kernel.reshape(kernel.shape[0], -1).T, torch_weight)
        kernel = attention["output"]["kernel"][layer]
        torch_weight = parameters[f"{name}self_attn.o_proj.weight"].grad
        _same(kernel.reshape(-1, kernel.shape[-1]).T, torch_weight)
        optional = {f"{hub}_proj.bias": (ours, "bias") for hub, ours in LINEARS.items()}
        optional |= {
            "q_norm.weight": ("query_norm", "scale"),
            "k_norm.weight": ("key_norm", "scale"),
        }
        for hub, (ours, kind) in optional.items():
            theirs = parameters.get(f"{name}self_attn.{hub}")
            assert (kind in attention.get(ours, {})) == (theirs is not None)
            if theirs is not None:
                _same(attention[ours][kind][layer].ravel(), theirs.grad)
        for ours, hub in (("gate", "gate_proj"), ("up", "up_proj"), ("down", "down_proj")):
            _same(mlp[ours]["kernel"][layer].T, parameters[f"{name}mlp.{hub}.weight"].grad)
        norm = parameters[f"{name}input_layernorm.weight"].grad
        _same(gradient["layers"]["attention_norm"]["scale"][layer], norm)


def _same(ours, torch_gradient):
    expected = torch_gradient.numpy()
    assert np.linalg.norm(ours - expected) <= 1e-4 * np.linalg.norm(expected)
