"""GGUF files of the llama architecture, rewritten as ordinary hub folders of that model type.

Weights are dequantised and stored in bfloat16; the tokenizer and its chat template come out of the
same file.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
from einops import rearrange
from jaxtyping import Float
from tokenizers import AddedToken, Tokenizer, models

from lco_jax.lab.gguf_reader import Fields, Reader
from lco_jax.lab.hub_folder import qwen2_tokenizer, write_json, write_weights
from lco_jax.models.config import from_hf
from lco_jax.models.families import LLAMA
from lco_jax.models.json_files import check, naming
from lco_jax.weights.finite import count_not_finite
from lco_jax.weights.tables import TABLES

_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_TENSORS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def convert_gguf(path: Path, folder: Path) -> None:
    """Write the model and the tokenizer of the GGUF file `path` into the existing `folder`.

    Raises:
        ValueError: the file is no llama decoder, or holds tensors or a tokenizer not known here.
    """
    try:
        reader = Reader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a complete GGUF file: {error}") from error
    scaling = [name for name in fields if name.startswith("llama.rope.scaling")]
    if scaling:
        raise ValueError(f"{path}: {scaling}: scaled rotary embeddings are not supported")
    fields = check(Fields, fields, path)
    is_tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    config = model_config(fields, is_tied=is_tied)
    with naming(path):
        tensors = {
            name: array.astype(ml_dtypes.bfloat16)
            for name, array in hub_tensors(reader.tensors, config)
        }
        tokenizer = build_tokenizer(fields)
    write_weights(folder, tensors)
    tokenizer.save(str(folder / "tokenizer.json"))
    token_ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "tokenizer_config.json", _tokenizer_config(fields))
    write_json(folder / "generation_config.json", token_ids)
    write_json(folder / "config.json", config)


def model_config(fields: Fields, *, is_tied: bool) -> dict[str, Any]:
    """The hub `config.json` of the decoder that the GGUF metadata `fields` describe."""
    return {
        "architectures": [LLAMA.torch_class],
        "model_type": LLAMA.name,
        "vocab_size": len(fields.tokens),
        "hidden_size": fields.hidden_size,
        "intermediate_size": fields.intermediate_size,
        "num_hidden_layers": fields.num_layers,
        "num_attention_heads": fields.num_heads,
        "num_key_value_heads": fields.num_kv_heads,
        "head_dim": fields.head_dim or fields.hidden_size // fields.num_heads,
        "hidden_act": "silu",
        "max_position_embeddings": fields.context_length,
        "rope_theta": fields.rope_theta,
        "rms_norm_eps": _shortest(fields.norm_eps),
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": is_tied,
        "bos_token_id": fields.bos,
        "eos_token_id": fields.eos,
        "pad_token_id": fields.pad,
        "torch_dtype": "bfloat16",
    }


def _shortest(value: float) -> float:
    """The shortest decimal of a number that was stored in float32 (1e-05, not 9.99999974e-06)."""
    return float(str(np.float32(value)))


def hub_tensors(
    tensors: Iterable[gguf.ReaderTensor], config: dict[str, Any]
) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
    """The tensors of a llama GGUF under their hub names, in float32.

    Raises:
        ValueError: tensors of unknown name or another shape, missing ones, or NaN in one.
    """
    text = from_hf(config, "its metadata as config.json").text
    table = TABLES[LLAMA.name]
    shapes = {
        table.name(key): row.layout.hub_shape(text.sizes)
        for row in table.rows
        for key in row.keys(text.num_layers)
    }
    expected = dict(_TENSORS)
    if config["tie_word_embeddings"]:
        del expected["output.weight"]
    for layer in range(config["num_hidden_layers"]):
        for name, hub_name in _LAYER_TENSORS.items():
            expected[f"blk.{layer}.{name}"] = f"model.layers.{layer}.{hub_name}"
    found = {tensor.name: tensor for tensor in tensors}
    if found.keys() != expected.keys():
        raise ValueError(
            "GGUF tensors do not form a llama decoder: "
            f"unknown {sorted(found.keys() - expected.keys())[:8]}, "
            f"missing {sorted(expected.keys() - found.keys())[:8]}"
        )
    num_heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, hub_name in expected.items():
        array = gguf.dequantize(found[name].data, found[name].tensor_type)
        if array.shape != shapes[hub_name]:
            raise ValueError(
                f"tensor {name} has the shape {array.shape}, expected {shapes[hub_name]}"
            )
        if bad := count_not_finite(np.ascontiguousarray(array)):
            raise ValueError(f"tensor {name}: {bad} values are NaN or infinite; fetch it again")
        projection = hub_name.split(".")[-2]
        if projection in num_heads:
            array = split_rotary_halves(array, num_heads[projection])
        yield hub_name, array


def split_rotary_halves(
    weight: Float[np.ndarray, "O D"], num_heads: int
) -> Float[np.ndarray, "O D"]:
    """A q or k projection whose rotary pairs are `(i, i + H/2)`, as on the hub, from one whose
    pairs are `(2i, 2i + 1)`, as in llama.cpp."""
    return rearrange(weight, "(n pair side) d -> (n side pair) d", n=num_heads, side=2)


def build_tokenizer(fields: Fields) -> Tokenizer:
    """The byte-level BPE tokenizer stored in GGUF metadata, splitting words as Qwen2 does.

    The class that the folder names, Qwen2's, builds that rule whatever the folder says, so the
    folder says it too and all readers agree. The file's own rule ("smollm") differs where line
    breaks meet blanks; the tokens of 16,824 WordNet glosses are the same under both.

    Raises:
        ValueError: merges of tokens that are not there.
    """
    merges = [tuple(merge.split(" ")) for merge in fields.merges]
    vocabulary = {token: index for index, token in enumerate(fields.tokens)}
    try:
        tokenizer = qwen2_tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # of Rust, which has no class of its own
        raise ValueError(f"its tokenizer cannot be built: {error}") from error
    special = [
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(fields.tokens, fields.token_types, strict=True)
        if kind == gguf.TokenType.CONTROL
    ]
    tokenizer.add_special_tokens(special)
    return tokenizer


def _tokenizer_config(fields: Fields) -> dict[str, Any]:
    """The hub `tokenizer_config.json`: roles of the special tokens and the chat template."""
    roles = {"bos": fields.bos, "eos": fields.eos, "pad": fields.pad, "unk": fields.unk}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        **{f"{role}_token": fields.tokens[token] for role, token in roles.items()},
        "model_max_length": fields.context_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": fields.chat_template,
    }
