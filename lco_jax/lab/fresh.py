"""A small vision-language model with random weights, for studies of training from scratch.

The result is an ordinary hub folder of type `qwen2_5_vl`, which every program of ours reads.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from lco_jax.lab.grid_config import FreshModel
from lco_jax.lab.hub_folder import qwen2_tokenizer, random_tensor, write_json, write_weights
from lco_jax.models.config import from_hf
from lco_jax.models.families import QWEN2_5_VL
from lco_jax.weights.rows import HEAD, Row
from lco_jax.weights.tables import TABLES

_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MEDIA = {
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
}
_EMBED_STD = 0.02
# ChatML without a system turn, which would be the same tokens before every item.
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""
_TEMPLATE_WORDS = "user\nassistant\nSummarize the above text image video in one word:\n"


def write_fresh(folder: Path, model: FreshModel, texts: Iterable[str], *, seed: int) -> None:
    """Write the model into the existing `folder`.

    Args:
        texts: what the tokenizer is learned from.
        seed: of the weights.

    Raises:
        ValueError: the sizes do not fit together.
    """
    tokenizer = _learn_tokenizer(texts, model.vocab_size)
    config = _config(model, tokenizer)
    rng = np.random.default_rng(seed)
    write_weights(folder, dict(_random_tensors(config, rng)))
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", config)
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "clean_up_tokenization_spaces": False,
            "chat_template": _CHAT_TEMPLATE,
            **roles,
        },
    )
    vision = config["vision_config"]
    write_json(
        folder / "preprocessor_config.json",
        {
            "patch_size": vision["patch_size"],
            "merge_size": vision["spatial_merge_size"],
            "temporal_patch_size": vision["temporal_patch_size"],
        },
    )


def _learn_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE that splits words as Qwen2 does, special tokens last."""
    tokenizer = qwen2_tokenizer(models.BPE())
    specials = (*_SPECIALS, *_MEDIA.values())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    # Repeated, so that the words of the prompts become tokens.
    tokenizer.train_from_iterator([*texts, *[_TEMPLATE_WORDS] * 100], trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in specials])
    return tokenizer


def _config(model: FreshModel, tokenizer: Tokenizer) -> dict[str, Any]:
    head_dim = model.hidden_size // model.num_heads
    quarter = head_dim // 8
    sections = [head_dim // 2 - 2 * quarter, quarter, quarter]  # time, height, width
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e4}
    ids = {f"{role}_token_id": tokenizer.token_to_id(text) for role, text in _MEDIA.items()}
    return {
        "architectures": [QWEN2_5_VL.torch_class],
        "model_type": QWEN2_5_VL.name,
        "text_config": {
            "model_type": QWEN2_5_VL.part_types["text_config"],
            "vocab_size": model.vocab_size,
            "hidden_size": model.hidden_size,
            "intermediate_size": model.intermediate_size,
            "num_hidden_layers": model.num_layers,
            "num_attention_heads": model.num_heads,
            "num_key_value_heads": model.num_kv_heads,
            "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "rope_parameters": rope,
            "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
            "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        },
        "vision_config": {
            "model_type": QWEN2_5_VL.part_types["vision_config"],
            "depth": model.vision_layers,
            "hidden_size": model.vision_size,
            "intermediate_size": model.vision_intermediate_size,
            "num_heads": 4,
            "out_hidden_size": model.hidden_size,
            "fullatt_block_indexes": list(range(model.vision_layers)),
            "in_channels": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "hidden_act": "silu",
            "tokens_per_second": 2,
        },
        **ids,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }


def _random_tensors(
    config: dict[str, Any], rng: np.random.Generator
) -> Iterator[tuple[str, Float[np.ndarray, "*hub"]]]:
    """All tensors of a model under their hub names; matrices keep the scale of what they read."""
    sizes = from_hf(config)
    table = TABLES[QWEN2_5_VL.name]
    for own, part in ((table, sizes.text), (table.tower("vision"), sizes.vision)):
        for row in own.rows:
            if row == HEAD:  # tied
                continue
            letters = part.merger_sizes if "/merger/" in row.ours else part.sizes
            shape = row.layout.our_shape(letters | {"Q": 3})
            for key in row.keys(part.num_layers):
                hub = row.layout.to_hub(_random(row, shape, rng))
                yield own.name(key), np.ascontiguousarray(hub, np.float32)


def _random(row: Row, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if row.ours == "embed/table":
        return rng.normal(scale=_EMBED_STD, size=shape)
    return random_tensor(row, shape, rng)
