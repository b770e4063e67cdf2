"""A small omni model put together from real parts: a text decoder and an audio tower, and a blank
vision tower.

The result is an ordinary hub folder of type `qwen2_5_omni_thinker`: what the towers do not say to
the decoder yet is for training to align.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from lco_jax.lab.hub_folder import random_tensor, write_json, write_weights
from lco_jax.lab.whisper import read_encoder
from lco_jax.models.config import from_hf
from lco_jax.models.families import QWEN2_5_OMNI_THINKER
from lco_jax.models.tower_config import AudioConfig, VisionConfig
from lco_jax.weights.files import SafetensorsFolder
from lco_jax.weights.rows import UNUSED_OF_OMNI_AUDIO
from lco_jax.weights.tables import TABLES, Table

MARKERS = {
    "vision_start": "<|vision_bos|>",
    "vision_end": "<|vision_eos|>",
    "image": "<|IMAGE|>",
    "video": "<|VIDEO|>",
    "audio_start": "<|audio_bos|>",
    "audio_end": "<|audio_eos|>",
    "audio": "<|AUDIO|>",
}
"""What stands for media, as in the public Omni checkpoints."""
_SPARE = {
    "<issue_start>": 8,
    "<issue_comment>": 9,
    "<jupyter_start>": 11,
    "<jupyter_text>": 12,
    "<jupyter_code>": 13,
    "<jupyter_output>": 14,
    "<jupyter_script>": 15,
}
"""Control tokens of SmolLM2 that take the parts of `MARKERS`, in order, and their ids."""

CHUNK_FRAMES = 200
"""Mel frames that the audio tower encodes together, as in public Omni models; Whisper, 3,000."""
_FIRST_FEATURES = 0.1
"""Of the spread that features would have if projections kept that of their inputs: near that of
token embeddings, whose place they take."""
_PROJECTIONS = ("audio/output/kernel", "vision/merger/output/kernel")
_BIASED = tuple(f"self_attn.{part}_proj.weight" for part in "qkv")
"""Weights beside which an omni model has a bias."""
_VISION = {
    "depth": 4,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_heads": 6,
    "fullatt_block_indexes": [0, 1, 2, 3],
    "in_channels": 3,
    "patch_size": 7,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "hidden_act": "silu",
    "tokens_per_second": 25,
}
"""Of the vision tower: 16 tokens of an image of 56 px."""
_MROPE_SHARES = (16, 24, 24)
"""Of the frequencies that turn with time, height and width. Source: Qwen2.5-VL."""
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '<|im_start|>system\nSYSTEM<|im_end|>\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}{{- 'IMAGE' -}}
{%- elif part['type'] == 'video' -%}{{- 'VIDEO' -}}
{%- elif part['type'] == 'audio' -%}{{- 'AUDIO' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}"""
_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""Source: SmolLM2's chat template."""


def assemble_omni(decoder: Path, whisper: Path, folder: Path, *, seed: int = 0) -> None:
    """Write the model into the existing `folder`.

    Args:
        decoder: hub folder of SmolLM2, with its spare control tokens.
        whisper: `model.bin` of a Whisper model, whose encoder becomes the audio tower. What
            projects its features, and all of the vision tower, is random.
        seed: of the random weights.

    Raises:
        ValueError: a part is not what it should be.
    """
    config = _config(json.loads((decoder / "config.json").read_text()), whisper)
    sizes = from_hf(config)
    tensors = dict(_decoder_tensors(SafetensorsFolder(decoder)))
    rng = np.random.default_rng(seed)
    heard = flatten_dict(read_encoder(whisper)[1], sep="/")
    heard.pop("audio/positions")  # they are sinusoids, which the tower computes
    # Whisper's last norm prepares for its own decoder; here a projection follows that is random.
    heard = {path: array for path, array in heard.items() if "audio/final_norm" not in path}
    audio, vision = (TABLES[sizes.family].tower(name) for name in ("audio", "vision"))
    tensors |= _tower_tensors(audio, sizes.audio, heard, rng)
    tensors |= _tower_tensors(vision, sizes.vision, {}, rng)
    tensors[f"audio_tower.{UNUSED_OF_OMNI_AUDIO}"] = np.zeros(
        (2, sizes.text.hidden_size), np.float32
    )
    write_weights(folder, tensors)
    _write_tokenizer(decoder, folder)
    shutil.copyfile(decoder / "generation_config.json", folder / "generation_config.json")
    preprocessor = {
        "patch_size": sizes.vision.patch_px,
        "merge_size": sizes.vision.merge_size,
        "temporal_patch_size": sizes.vision.frames_per_patch,
        "feature_size": sizes.audio.num_mels,
        "feature_extractor_type": "WhisperFeatureExtractor",
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    write_json(folder / "config.json", config)


def _config(text: Mapping[str, Any], whisper: Path) -> dict[str, Any]:
    """The `config.json`, from that of the decoder and the sizes of the audio tower."""
    encoder, _ = read_encoder(whisper)
    sizes = from_hf(dict(text)).text
    half = sizes.head_dim // 2
    time, height, _ = (share * half // sum(_MROPE_SHARES) for share in _MROPE_SHARES)
    rope = {
        "rope_type": "default",
        "mrope_section": [time, height, half - time - height],
        "rope_theta": sizes.rope_theta,
    }
    dropped = ("architectures", "model_type", "torch_dtype", "dtype", "tie_word_embeddings")
    dropped += ("attention_bias", "mlp_bias")  # of llama decoders
    decoder = {key: value for key, value in text.items() if key not in dropped}
    ids = dict(zip(MARKERS, _SPARE.values(), strict=True))
    part_types = QWEN2_5_OMNI_THINKER.part_types
    return {
        "architectures": [QWEN2_5_OMNI_THINKER.torch_class],
        "model_type": QWEN2_5_OMNI_THINKER.name,
        "text_config": {
            **decoder,
            "model_type": part_types["text_config"],
            "rope_parameters": rope,
            "rope_theta": sizes.rope_theta,
        },
        "vision_config": {
            **_VISION,
            "model_type": part_types["vision_config"],
            "out_hidden_size": sizes.hidden_size,
        },
        "audio_config": {
            "model_type": part_types["audio_config"],
            "encoder_layers": encoder.num_layers,
            "d_model": encoder.hidden_size,
            "encoder_ffn_dim": encoder.intermediate_size,
            "encoder_attention_heads": encoder.num_heads,
            "num_mel_bins": encoder.num_mels,
            "n_window": CHUNK_FRAMES // 2,
            "max_source_positions": encoder.chunk_frames // 2,
            "output_dim": sizes.hidden_size,
        },
        **{f"{role}_token_id": token for role, token in ids.items()},
        "position_id_per_seconds": _VISION["tokens_per_second"],
        "seconds_per_chunk": 2,
        "tie_word_embeddings": sizes.tie_embeddings,
        "torch_dtype": "float32",
    }


def _decoder_tensors(source: SafetensorsFolder) -> Iterator[tuple[str, np.ndarray]]:
    """The decoder's tensors, with biases of zero where the omni model has some and it has none."""
    for name in source.specs:
        array = np.ascontiguousarray(source.view(name))
        yield name, array
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(_BIASED) and bias not in source.specs:
            yield bias, np.zeros(array.shape[0], array.dtype)


def _tower_tensors(
    table: Table,
    config: VisionConfig | AudioConfig,
    known: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> Iterator[tuple[str, Float[np.ndarray, "*hub"]]]:
    """The tensors of a tower under their hub names: those that are `known`, else random."""
    for row in table.rows:
        sizes = config.merger_sizes if "/merger/" in row.ours else config.sizes
        for key in row.keys(config.num_layers):
            place, array = key[1], known.get(row.ours)
            if array is None:
                gain = _FIRST_FEATURES if row.ours in _PROJECTIONS else 1.0
                values = random_tensor(row, row.layout.our_shape(sizes), rng, gain=gain)
            else:
                values = array if place is None else array[place]
            yield table.name(key), np.ascontiguousarray(row.layout.to_hub(values), np.float32)


def _write_tokenizer(decoder: Path, folder: Path) -> None:
    """The tokenizer with the names of the media in the place of spare ones, and the template."""
    text = (decoder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = json.loads(text)
    names = dict(zip(_SPARE, MARKERS.values(), strict=True))
    found = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    missing = {name: token for name, token in _SPARE.items() if found.get(name) != token}
    if missing:
        raise ValueError(
            f"{decoder}: the tokenizer lacks the control tokens {missing} of SmolLM2, which are to "
            "stand for media; use the folder that launch/fetch.py makes"
        )
    for token in tokenizer["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {
        names.get(token, token): index for token, index in vocabulary.items()
    }
    write_json(folder / "tokenizer.json", tokenizer)
    config = json.loads((decoder / "tokenizer_config.json").read_text(encoding="utf-8"))
    markup = {
        "SYSTEM": _SYSTEM,
        "IMAGE": _wrapped("vision", "image"),
        "VIDEO": _wrapped("vision", "video"),
        "AUDIO": _wrapped("audio", "audio"),
    }
    template = _CHAT_TEMPLATE
    for name, value in markup.items():
        template = template.replace(f"'{name}'", f"'{value}'").replace(f"{name}<", f"{value}<")
    roles = {
        "image": "image",
        "video": "video",
        "audio": "audio",
        "vision_bos": "vision_start",
        "vision_eos": "vision_end",
        "audio_bos": "audio_start",
        "audio_eos": "audio_end",
    }
    tokens = {f"{name}_token": MARKERS[role] for name, role in roles.items()}
    write_json(
        folder / "tokenizer_config.json",
        config | {"chat_template": template, "extra_special_tokens": tokens},
    )


def _wrapped(sense: str, kind: str) -> str:
    return MARKERS[f"{sense}_start"] + MARKERS[kind] + MARKERS[f"{sense}_end"]
