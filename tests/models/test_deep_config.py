"""Sizes of models whose tower gives features of several layers: read, and refused by name."""

import copy
from pathlib import Path

import pytest

import lco_jax
from lco_jax.models.config import from_hf, public_config
from lco_jax.models.json_files import read_object

SIZES = "Qwen/Qwen3-VL-8B-Instruct"


@pytest.fixture(scope="module")
def public():
    return read_object(Path(lco_jax.__file__).parent / "models/sizes/Qwen3-VL-8B-Instruct.json")


def test_the_public_sizes():
    found = public_config(SIZES)
    assert found.vision.deep_layers == (8, 16, 24) and found.vision.table_side == 48
    assert found.feature_size == 4 * 4096
    assert found.text.interleaves_axes and found.text.has_qk_norm and not found.text.has_qkv_bias
    assert found.placeholders == {"image": 151655, "video": 151656}


def test_what_files_leave_out(public):
    config = copy.deepcopy(public)
    for name in ("head_dim", "num_key_value_heads", "rope_theta"):
        del config["text_config"][name]
    found = from_hf(config).text
    assert (found.head_dim, found.num_kv_heads, found.rope_theta) == (128, 32, 5e5)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("", {"model_type": "qwen3_vl_moe"}, "model_type='qwen3_vl_moe' is not supported"),
        ("text_config", {"num_experts": 128}, "mixtures of experts are not supported"),
        (
            "text_config",
            {"rope_scaling": {"mrope_section": [24, 20, 20], "mrope_interleaved": False}},
            "mrope_interleaved=False is not supported",
        ),
        ("text_config", {"rope_scaling": {"rope_type": "default"}}, "lacks 'mrope_section'"),
        ("vision_config", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("vision_config", {"num_position_embeddings": 2300}, "=2300 must be a square"),
        ("vision_config", {"deepstack_visual_indexes": [8, 4]}, "must be ascending and lie in"),
        ("vision_config", {"deepstack_visual_indexes": [27]}, "must be ascending and lie in"),
        ("vision_config", {"num_heads": 15}, "must be a multiple of 4"),
        ("vision_config", {"out_hidden_size": 2048}, "features of the tower have 2048 values"),
    ],
)
def test_what_is_refused(public, place, change, message):
    config = copy.deepcopy(public)
    (config[place] if place else config).update(change)
    with pytest.raises(ValueError, match=message):
        from_hf(config)


def test_axes_in_turns_are_of_this_family_alone(public):
    config = {"model_type": "qwen2", **public["text_config"]}
    config |= {"model_type": "qwen2", "attention_bias": True}
    with pytest.raises(ValueError, match="mrope_interleaved=True is not supported"):
        from_hf(config)
