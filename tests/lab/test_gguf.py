"""GGUF conversion against an independent oracle and transformers."""

import json
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lco_jax.lab.gguf import convert_gguf

NUM_LAYERS, WIDTH, HIDDEN, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 2, 64, 96, 4, 2, 16
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), "th", "the", "Ġthe"]
MERGES = ["t h", "th e", "Ġ the"]
TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + "
    "'<|im_end|>\\n'}}{% endfor %}"
)


def hub_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random weights of a decoder under hub names, exact in bfloat16."""
    layer = {
        "input_layernorm": (WIDTH,),
        "self_attn.q_proj": (NUM_HEADS * HEAD_DIM, WIDTH),
        "self_attn.k_proj": (NUM_KV_HEADS * HEAD_DIM, WIDTH),
        "self_attn.v_proj": (NUM_KV_HEADS * HEAD_DIM, WIDTH),
        "self_attn.o_proj": (WIDTH, NUM_HEADS * HEAD_DIM),
        "post_attention_layernorm": (WIDTH,),
        "mlp.gate_proj": (HIDDEN, WIDTH),
        "mlp.up_proj": (HIDDEN, WIDTH),
        "mlp.down_proj": (WIDTH, HIDDEN),
    }
    shapes = {"embed_tokens": (len(TOKENS), WIDTH), "norm": (WIDTH,)}
    for index in range(NUM_LAYERS):
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    return {
        f"model.{name}.weight": rng.normal(0.1, 0.3, shape)
        .astype(ml_dtypes.bfloat16)
        .astype(np.float32)
        for name, shape in shapes.items()
    }


def to_llama_cpp(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows reordered as llama.cpp stores them, written out row by row."""
    result = np.empty_like(weight)
    for head in range(num_heads):
        start = head * HEAD_DIM
        for pair in range(HEAD_DIM // 2):
            result[start + 2 * pair] = weight[start + pair]
            result[start + 2 * pair + 1] = weight[start + pair + HEAD_DIM // 2]
    return result


def write_gguf(
    path: Path,
    weights: dict[str, np.ndarray],
    *,
    architecture: str = "llama",
    pre_tokenizer: str = "smollm",
    scaled_rope: bool = False,
    quantization: gguf.GGMLQuantizationType | None = None,
) -> None:
    """A GGUF file with the given hub weights, as a llama.cpp converter would write it."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(NUM_LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(100000.0)
    if scaled_rope:
        writer.add_rope_scaling_factor(2.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(TOKENS)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIAL else normal for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, NUM_LAYERS)
    for hub_name, weight in weights.items():
        name = names.get_name(hub_name, (".weight",)) or hub_name
        if "q_proj" in hub_name:
            weight = to_llama_cpp(weight, NUM_HEADS)
        if "k_proj" in hub_name:
            weight = to_llama_cpp(weight, NUM_KV_HEADS)
        if quantization is not None and weight.ndim == 2:
            writer.add_tensor(name, gguf.quantize(weight, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return hub_weights(np.random.default_rng(0))


@pytest.fixture
def hub_folder(tmp_path: Path, weights: dict[str, np.ndarray]) -> Path:
    write_gguf(tmp_path / "tiny.gguf", weights)
    folder = tmp_path / "hub"
    folder.mkdir()
    convert_gguf(tmp_path / "tiny.gguf", folder)
    return folder


def test_weights_come_back_bit_for_bit(hub_folder, weights):
    converted = safetensors.numpy.load_file(hub_folder / "model.safetensors")
    assert converted.keys() == weights.keys()
    for name, weight in weights.items():
        assert converted[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(converted[name].astype(np.float32), weight, err_msg=name)


def test_untied_head_is_kept(tmp_path, weights):
    head = np.random.default_rng(1).normal(size=(len(TOKENS), WIDTH)).astype(np.float32)
    write_gguf(tmp_path / "tiny.gguf", weights | {"lm_head.weight": head})
    convert_gguf(tmp_path / "tiny.gguf", tmp_path)
    converted = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(converted["lm_head.weight"], head.astype(ml_dtypes.bfloat16))
    assert not json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]


def test_logits_equal_those_of_transformers_own_reader(hub_folder):
    llama = AutoModelForCausalLM.from_pretrained(
        hub_folder.parent, gguf_file="tiny.gguf", dtype=torch.float32
    )
    converted, info = AutoModelForCausalLM.from_pretrained(
        hub_folder, output_loading_info=True, dtype=torch.float32
    )
    assert type(llama) is type(converted) is LlamaForCausalLM
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert converted.config.rms_norm_eps == 1e-5
    tokens = torch.from_numpy(np.random.default_rng(2).integers(0, len(TOKENS), (2, 40)))
    with torch.no_grad():
        found, expected = converted(tokens).logits, llama(tokens).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def dequantize_by_hand(blocks: np.ndarray, quantization: gguf.GGMLQuantizationType) -> np.ndarray:
    """Blocks of 32 numbers, one by one, from their bytes."""
    values = []
    for row in blocks:
        numbers = []
        step = 34 if quantization == gguf.GGMLQuantizationType.Q8_0 else 20
        for start in range(0, len(row), step):
            block = row[start : start + step].tobytes()
            scale = np.frombuffer(block[:2], np.float16)[0].astype(np.float32)
            if step == 34:
                numbers += [scale * value for value in np.frombuffer(block[2:], np.int8)]
            else:
                low = np.frombuffer(block[2:4], np.float16)[0].astype(np.float32)
                numbers += [scale * (byte & 15) + low for byte in block[4:]]
                numbers += [scale * (byte >> 4) + low for byte in block[4:]]
        values.append(numbers)
    return np.array(values, np.float32)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_quantized_weights(tmp_path, weights, kind):
    quantization = gguf.GGMLQuantizationType[kind]
    write_gguf(tmp_path / "tiny.gguf", weights, quantization=quantization)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    expected = dequantize_by_hand(gguf.quantize(weights[name], quantization), quantization)
    assert np.abs(expected - weights[name]).max() < 0.2  # the oracle itself is sane
    converted = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(converted[name], expected.astype(ml_dtypes.bfloat16))


def test_tokenizer(hub_folder):
    tokenizer = AutoTokenizer.from_pretrained(hub_folder)
    text = "<|im_start|>user\nthe naïve 42 the\n\n  東京<|im_end|>"
    ids = tokenizer(text).input_ids
    # Every reader agrees: transformers builds Qwen2's word rule, `tokenizers` reads the file's.
    assert ids == Tokenizer.from_file(str(hub_folder / "tokenizer.json")).encode(text).ids
    assert ids[0] == 1
    assert ids[-1] == 2
    assert TOKENS.index("Ġthe") in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text[12:-10]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (2, 2, 1)
    messages = [{"role": "user", "content": "the"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered == "<|im_start|>user\nthe<|im_end|>\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "falcon"}, "'falcon'"),
        ({"pre_tokenizer": "llama-bpe"}, "'llama-bpe'"),
        ({"scaled_rope": True}, "rope.scaling"),
    ],
)
def test_other_models_are_refused(tmp_path, weights, options, message):
    write_gguf(tmp_path / "tiny.gguf", weights, **options)
    with pytest.raises(ValueError, match=message):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path)


def test_unknown_missing_and_truncated_are_refused(tmp_path, weights):
    path = tmp_path / "tiny.gguf"
    del weights["model.norm.weight"]
    write_gguf(path, weights | {"extra.weight": np.ones(32, np.float32)})
    with pytest.raises(ValueError, match=r"unknown \['extra.weight'\].*'output_norm.weight'"):
        convert_gguf(path, tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="not a complete GGUF file"):
        convert_gguf(path, tmp_path)
