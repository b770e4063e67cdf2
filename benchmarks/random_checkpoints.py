"""Random checkpoints of middle size that the comparisons read, written by transformers."""

from pathlib import Path

import torch
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from tests.tokenizers import MEDIA_IDS, write_tokenizer

_TEXT = {
    "vocab_size": 512,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 10,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "rope_type": "default",
        "mrope_section": [8, 12, 12],
        "rope_theta": 1e6,
    },
}
"""A decoder of 60 M weights."""
_VL_ROLES = ("vision_start", "vision_end", "image", "video")


def write_vl(folder: Path, dtype: str) -> None:
    """A Qwen2.5-VL whose vision tower has 49 M weights."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config=_TEXT,
        vision_config={
            "depth": 12,
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_heads": 8,
            "fullatt_block_indexes": [2, 5, 8, 11],
            "out_hidden_size": _TEXT["hidden_size"],
            "tokens_per_second": 2,
        },
        **{f"{role}_token_id": MEDIA_IDS[role] for role in _VL_ROLES},
    )
    model = Qwen2_5_VLForConditionalGeneration(config).to(getattr(torch, dtype))
    _save(model, folder, "qwen2_5_vl")


def write_omni(folder: Path) -> None:
    """A Qwen2.5-Omni in float32 with small towers, for texts."""
    torch.manual_seed(0)
    config = Qwen2_5OmniThinkerConfig(
        text_config=_TEXT,
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 4,
            "fullatt_block_indexes": [1],
            "out_hidden_size": _TEXT["hidden_size"],
        },
        audio_config={
            "encoder_layers": 2,
            "d_model": 64,
            "encoder_ffn_dim": 64,
            "encoder_attention_heads": 4,
            "output_dim": _TEXT["hidden_size"],
        },
        **{f"{role}_token_id": token for role, token in MEDIA_IDS.items()},
    )
    model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    _save(model, folder, "qwen2_5_omni_thinker")


def _save(model: PreTrainedModel, folder: Path, family: str) -> None:
    model.save_pretrained(folder)
    write_tokenizer(folder, family)
