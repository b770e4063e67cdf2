"""Sizes of towers and ids of media tokens, out of flat and nested config files."""

import copy

import pytest

from lco_jax.models.config import from_hf, public_config, read_config
from lco_jax.models.tokens import MediaTokens
from tests import tiny

TEXT = {
    "vocab_size": 512,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
MROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
VISION_TOKENS = {"vision_start_token_id": 1, "vision_end_token_id": 2}
AUDIO = {
    "encoder_layers": 3,
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "num_mel_bins": 128,
    "n_window": 100,
    "max_source_positions": 1500,
    "output_dim": 32,
    "activation_function": "gelu",
    "scale_embedding": False,
    "dropout": 0.0,
}
THINKER = {
    "model_type": "qwen2_5_omni_thinker",
    "text_config": TEXT | MROPE,
    "audio_config": AUDIO,
    "image_token_index": 3,
    "video_token_index": 4,
    "audio_token_index": 5,
    "audio_start_token_id": 6,
    "audio_end_token_id": 7,
    "seconds_per_chunk": 2,
    **VISION_TOKENS,
}


def test_tokens_of_every_spelling():
    flat = {**TEXT, **MROPE, "model_type": "qwen2_5_vl", "image_token_id": 3, "video_token_id": 4}
    vision = MediaTokens(image=3, video=4, vision_start=1, vision_end=2)
    assert from_hf({**flat, **VISION_TOKENS}).media_tokens == vision
    every = MediaTokens(3, 4, 1, 2, audio=5, audio_start=6, audio_end=7)
    assert from_hf(THINKER).media_tokens == every
    full = {"model_type": "qwen2_5_omni", "thinker_config": THINKER}
    assert from_hf(full).media_tokens == every
    renamed = {key.replace("token_index", "token_id"): value for key, value in THINKER.items()}
    assert from_hf(renamed).media_tokens == every
    assert from_hf({**TEXT, "model_type": "qwen2"}).media_tokens is None
    assert from_hf({**flat, "image_token_id": None, "video_token_id": None}).media_tokens is None


@pytest.mark.parametrize("size", ["3B", "7B"])
def test_public_audio_towers(size):
    config = public_config(f"Qwen2.5-Omni-{size}")
    assert config.audio.out_size == config.text.hidden_size
    assert (config.audio.num_layers, config.audio.hidden_size) == (32, 1280)
    assert (config.audio.num_mels, config.audio.chunk_frames) == (128, 200)


def test_what_transformers_writes(tmp_path):
    tiny.write(tmp_path / "omni", "qwen2_5_omni_thinker")
    config = read_config(tmp_path / "omni")
    ids = tiny.MEDIA_IDS
    assert config.media_tokens == MediaTokens(**ids)
    assert (config.audio.num_layers, config.audio.chunk_frames, config.audio.out_size) == (
        1,
        200,
        32,
    )
    tiny.write(tmp_path / "vl", "qwen2_5_vl")
    config = read_config(tmp_path / "vl")
    seen = {role: ids[role] for role in ("image", "video", "vision_start", "vision_end")}
    assert config.media_tokens == MediaTokens(**seen)
    assert config.audio is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_start_token_id": None}, r"lacks \['vision_start_token_id'\]"),
        ({"audio_end_token_id": None}, r"lacks \['audio_end_token_id'\]"),
        ({"audio_end_token_id": 6}, "one id to two media tokens"),
    ],
)
def test_bad_tokens(change, message):
    with pytest.raises(ValueError, match=message):
        from_hf(THINKER | change)


def test_sizes_of_the_audio_tower():
    audio = from_hf(THINKER).audio
    assert (audio.num_layers, audio.hidden_size, audio.intermediate_size) == (3, 32, 64)
    assert (audio.num_heads, audio.num_mels, audio.out_size) == (4, 128, 32)
    assert (audio.chunk_frames, audio.chunk_rows, audio.seconds_per_turn) == (200, 100, 2.0)
    assert not audio.has_stored_positions


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("activation_function", "relu", "activation_function='relu' is not supported; .* 'gelu'"),
        ("scale_embedding", True, "scale_embedding=True is not supported; expected False"),
        ("attention_dropout", 0.1, r"attention_dropout=0\.1 is not supported; expected 0"),
        ("n_window", 1600, "n_window=1600 exceeds the number of positions"),
        ("n_window", 75, "chunks of 150 frames .* multiple of 4"),
        ("encoder_attention_heads", 5, "multiple of encoder_attention_heads=5"),
        ("output_dim", None, "config.json: audio_config: lacks 'output_dim'"),
    ],
)
def test_unsupported_audio_towers(field, value, message):
    config = copy.deepcopy(THINKER)
    config["audio_config"][field] = value
    if value is None:
        del config["audio_config"][field]
    with pytest.raises(ValueError, match=message):
        from_hf(config)


# ------------------------------------------------------------------------- decoders of families

LLAMA = {**TEXT, "model_type": "llama"}
MISTRAL = {**TEXT, "model_type": "mistral", "num_key_value_heads": 4, "sliding_window": None}
QWEN3 = {**TEXT, "model_type": "qwen3", "num_key_value_heads": 4}
YARN = {"rope_type": "yarn", "factor": 4.0}


def test_what_configs_leave_out_is_what_transformers_assumes():
    bare = {key: value for key, value in LLAMA.items() if not key.startswith("r")}
    wide = {"num_attention_heads": 32, "hidden_size": 64}
    llama, mistral, qwen3 = (
        from_hf({**bare, **wide, "model_type": kind, "sliding_window": None}).text
        for kind in ("llama", "mistral", "qwen3")
    )
    for text in (llama, mistral, qwen3):
        assert (text.rope_theta, text.norm_eps, text.rope_scaling) == (1e4, 1e-6, None)
        assert not (text.has_qkv_bias or text.has_output_bias)
    assert [text.num_kv_heads for text in (llama, mistral, qwen3)] == [32, 8, 32]
    assert [text.head_dim for text in (llama, mistral, qwen3)] == [2, 2, 128]
    assert [text.has_qk_norm for text in (llama, mistral, qwen3)] == [False, False, True]
    inner = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    assert from_hf({**bare, **inner}).text.rope_theta == 5e5


def test_biases():
    for config in (LLAMA, QWEN3):
        text = from_hf({**config, "attention_bias": True}).text
        assert text.has_qkv_bias and text.has_output_bias
    qwen2 = from_hf({**TEXT, "model_type": "qwen2"}).text
    assert qwen2.has_qkv_bias and not qwen2.has_output_bias


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**MISTRAL, "attention_bias": True}, "attention_bias=True is not supported; exp.* False"),
        ({**LLAMA, "mlp_bias": True}, "mlp_bias=True is not supported"),
        ({**LLAMA, "head_dim": 7}, "an even width.* head_dim=7"),
        (
            {key: value for key, value in MISTRAL.items() if key != "sliding_window"},
            "sliding_window=4096 in 2 of 2 layers: .* set sliding_window to null",
        ),
        ({**MISTRAL, "sliding_window": 64}, "sliding_window=64 in 2 of 2 layers"),
        (
            {**QWEN3, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
            "sliding_window=64 in 1 of 2 layers",
        ),
        (
            {**QWEN3, "layer_types": ["full_attention", "sliding_attention"]},
            r"layer_types\.1='sliding_attention' .* set sliding_window to null",
        ),
        ({**TEXT, "model_type": "mixtral", "num_local_experts": 8}, "=8 .* use a dense model"),
        ({**TEXT, "model_type": "qwen3_moe"}, "'qwen3_moe' is not supported; .*'qwen3', 'llama'"),
        (
            {**LLAMA, "quantization_config": {"quant_method": "gptq"}},
            "quantization_config=.*AWQ, GPTQ, bitsandbytes, FP8.* checkpoint in bfloat16",
        ),
    ],
)
def test_decoders_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        from_hf(config)


@pytest.mark.parametrize(
    ("rope", "others", "message"),
    [
        ({"type": "dynamic", "factor": 2.0}, {}, "type='dynamic' is not .* the other texts of its"),
        ({"rope_type": "longrope"}, {}, "rope_type='longrope' is not .* use another"),
        ({"rope_type": "linear"}, {}, "lacks 'factor', which rope_type='linear' needs"),
        ({"factor": 4.0}, {}, r"factor=4\.0 is not read with rope_type='default'; remove it"),
        ({"type": "linear", "factor": 2.0, "beta_fast": 8.0}, {}, r"beta_fast=8\.0 is not read"),
        ({"type": "linear", "rope_type": "yarn", "factor": 2.0}, {}, "must not differ"),
        ({"rope_type": "linear", "factor": 0.5}, {}, r"factor=0\.5 should be greater"),
        (YARN, {}, "lacks 'original_max_position_embeddings', which rope_type='yarn' needs"),
        (
            YARN | {"original_max_position_embeddings": 64},
            {"original_max_position_embeddings": 32},
            "=32 and that of the rope parameters, 64, must not differ",
        ),
        (
            YARN | {"attention_factr": 1.0, "original_max_position_embeddings": 64},
            {},
            "rope_scaling: the field 'attention_factr' is not known; .* 'attention_factor'",
        ),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0},
            {},
            r"high_freq_factor=4\.0 must exceed low_freq_factor=4\.0",
        ),
    ],
)
def test_rotations_that_are_refused(rope, others, message):
    with pytest.raises(ValueError, match=message):
        from_hf({**LLAMA, **others, "rope_scaling": rope})
