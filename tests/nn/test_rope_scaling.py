"""Scaled rotary frequencies against those of transformers."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lco_jax.models.config import from_hf
from lco_jax.nn.rope import mrope

SIZES = {
    "vocab_size": 128,
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "Llama 3.1": LLAMA3 | {"factor": 8.0, "original_max_position_embeddings": 2048},
    "Llama 3.2": LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 512},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn without": {"rope_type": "yarn", "factor": 4.0},
    "yarn of few turns": {
        "rope_type": "yarn",
        "factor": 1.0,
        "original_max_position_embeddings": 8,
    },
    "yarn with its own ramp": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 1024,
        "mscale": 0.707,
        "mscale_all_dim": 1.0,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
    },
    "yarn with its own factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 1024,
        "attention_factor": 0.7,
        "truncate": False,
    },
}


@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize("head_dim", [16, 128])
@pytest.mark.parametrize("name", CASES)
def test_cosines_and_sines(name, head_dim, theta):
    rope = {**CASES[name], "rope_theta": theta}
    config = LlamaConfig(**SIZES, head_dim=head_dim, rope_parameters=dict(rope))
    plain = LlamaConfig(**SIZES, head_dim=head_dim, rope_parameters={"rope_theta": theta})
    text = from_hf(
        {**SIZES, "head_dim": head_dim, "model_type": "llama", "rope_scaling": rope}
    ).text
    places = np.array([[0, 1, 7, 100, 1000]])
    options = {"head_dim": head_dim, "theta": text.rope_theta, "section": None}
    found = mrope(np.repeat(places[..., None], 3, -1), **options, scaling=text.rope_scaling)
    others = {}
    for kind, one in (("scaled", config), ("plain", plain)):
        cos, sin = LlamaRotaryEmbedding(one)(torch.zeros(1), torch.tensor(places))
        others[kind] = [x[..., : head_dim // 2].numpy() for x in (cos, sin)]
    for own, scaled, unscaled in zip(found, others["scaled"], others["plain"], strict=True):
        np.testing.assert_allclose(own, scaled, atol=2e-4)
        assert rope["factor"] == 1 or np.abs(scaled - unscaled).max() > 0.01
    frequencies, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config)
    ours, scale = text.rope_scaling.apply(
        theta ** (-np.arange(head_dim // 2, dtype=np.float32) / np.float32(head_dim // 2)), theta
    )
    np.testing.assert_allclose(ours, frequencies.numpy(), rtol=5e-7)
    assert scale == pytest.approx(factor, rel=1e-12)
