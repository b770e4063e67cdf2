"""Sizes of models that read images in tiles: what files leave out, and what is refused by name."""

import copy

import pytest
from transformers import LlavaNextConfig

from lco_jax.models.config import from_hf, public_config

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
VICUNA = {
    "model_type": "llava_next",
    "image_token_index": 32000,
    "ignore_index": -100,
    "image_seq_length": 576,
    "projector_hidden_act": "gelu",
    "use_image_newline_parameter": True,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "text_config": {
        "model_type": "llama",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32064,
    },
    "vision_config": CLIP,
}
MISTRAL = VICUNA | {
    "text_config": {
        "model_type": "mistral",
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": None,
        "vocab_size": 32064,
    }
}


@pytest.mark.parametrize("config", [VICUNA, MISTRAL], ids=["vicuna", "mistral"])
def test_what_files_leave_out_is_what_transformers_assumes(config):
    """In the spelling of the hub's files."""
    found, theirs = from_hf(config), LlavaNextConfig(**copy.deepcopy(config))
    text, vision = theirs.text_config, theirs.vision_config
    assert (found.text.hidden_size, found.text.num_layers, found.text.num_heads) == (
        text.hidden_size,
        text.num_hidden_layers,
        text.num_attention_heads,
    )
    assert found.text.num_kv_heads == text.num_key_value_heads
    assert found.text.intermediate_size == text.intermediate_size
    assert found.text.rope_theta == text.rope_parameters["rope_theta"]
    assert not found.text.tie_embeddings and found.text.mrope_section is None
    assert found.vision.pinpoints == tuple(map(tuple, theirs.image_grid_pinpoints))
    assert found.vision.norm_eps == vision.layer_norm_eps and vision.hidden_act == "quick_gelu"
    assert (found.vision.num_layers, found.vision.num_stored_layers) == (23, 24)
    assert found.placeholders == {"image": 32000}
    assert found.vision.out_size == 4096 and found.vision.tile_patches == 576


def test_the_public_sizes_are_those_of_e5_v():
    found = public_config("llava-hf/llama3-llava-next-8b-hf")
    assert found.media_tokens.image == 128256
    assert (found.text.vocab_size, found.text.num_kv_heads) == (128320, 8)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("", {"vision_config": None}, "vision_config=None"),
        ("", {"vision_feature_layer": [-2, -5]}, "features of several layers are not supported"),
        ("", {"vision_feature_layer": -25}, "vision_feature_layer=-25 must name the output"),
        ("", {"vision_feature_select_strategy": "full"}, "='full' is not supported; expected"),
        ("", {"projector_hidden_act": "relu"}, "projector_hidden_act='relu' is not supported"),
        ("", {"use_image_newline_parameter": False}, "use_image_newline_parameter=False"),
        ("", {"image_grid_pinpoints": [[336, 500]]}, r"has \[336, 500\], which is no multiple"),
        ("", {"image_token_index": 32064}, "image_token_id=32064 has no embedding"),
        ("vision_config", {"model_type": "siglip_vision_model"}, "'siglip_vision_model' is not"),
        ("vision_config", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("vision_config", {"patch_size": 16, "image_size": 330}, "image_size=330 must be a mult"),
        ("vision_config", {"num_attention_heads": 15}, "must be a multiple of num_attention_head"),
        ("text_config", {"model_type": "qwen2"}, r"'qwen2' is not supported in a llava_next model"),
        ("text_config", {"quantization_config": {}}, "AWQ, GPTQ"),
    ],
)
def test_what_is_refused(place, change, message):
    config = copy.deepcopy(VICUNA)
    (config[place] if place else config).update(change)
    with pytest.raises(ValueError, match=message):
        from_hf(config)
