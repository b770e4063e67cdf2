"""Tiny random checkpoints of every family, written by transformers; nothing is downloaded."""

import dataclasses
import json
from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

from tests.tokenizers import MEDIA_IDS, VOCAB_SIZE, write_tokenizer

VOCABULARY = 512
_DECODERS = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16, "attention_bias": True}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
}
"""Of models that read texts alone: their classes, and what sets them apart."""
_VL_ROLES = ("vision_start", "vision_end", "image", "video")
SMALL_TOWER = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 4,
    "fullatt_block_indexes": [0],
}
DEEP_TOWER = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_heads": 4,
    "fullatt_block_indexes": [1, 3],
}
"""Vision towers; windows of 112 px, patches of 14 px and merge units of 2 x 2 as on the hub."""
TILES = {
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
}
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
"""A tower of tiles of 4 x 4 patches, and the images that are cut into them."""
DEEP_FRAMES = {
    "depth": 4,
    "hidden_size": 36,
    "intermediate_size": 28,
    "num_heads": 3,
    "patch_size": 16,
    "num_position_embeddings": 36,
    "deepstack_visual_indexes": [0, 2],
}
EVEN_FRAMES = DEEP_FRAMES | {"num_heads": 4, "hidden_size": 32, "deepstack_visual_indexes": [1, 3]}
"""Towers two layers of which give features to the decoder's first, with positions of 6 x 6 patches;
the second for meshes that divide heads and widths."""
SMALL_EAR = {
    "encoder_layers": 1,
    "d_model": 16,
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 4,
}
DEEP_EAR = {
    "encoder_layers": 3,
    "d_model": 32,
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
}
"""Audio towers; 128 mels and chunks of 200 frames as on the hub."""


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A checkpoint on disk and the model that wrote it (float32, evaluation mode)."""

    folder: Path
    model: PreTrainedModel

    @property
    def decoder(self) -> torch.nn.Module:
        """The text decoder of the torch model."""
        inner = self.model.model
        return getattr(inner, "language_model", inner)


def write(
    folder: Path,
    family: str = "qwen2",
    *,
    tied: bool = True,
    num_kv_heads: int = 2,
    num_layers: int = 3,
    vision: dict | None = None,
    audio: dict | None = None,
    changes: dict | None = None,
    seed: int = 0,
) -> Tiny:
    """Write a checkpoint with its tokenizer; weights, biases and norms are all random.

    `vision` and `audio` are the sizes of the towers (None: `SMALL_TOWER`, `TILES`, `DEEP_FRAMES`,
    `SMALL_EAR`), `changes` are of the config of a model that reads texts alone or images in tiles,
    or of the decoder of a `qwen3_vl`; of the second `decoder` names the family of the decoder.
    """
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": num_kv_heads,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    mrope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    given = vision
    vision = {**(vision or SMALL_TOWER), "out_hidden_size": text["hidden_size"]}
    torch.manual_seed(seed)
    if family in _DECODERS:
        config_class, model_class, own = _DECODERS[family]
        own = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}} | own
        config = config_class(**(text | own | (changes or {})), tie_word_embeddings=tied)
        model = model_class(config)
    elif family == "qwen2_5_vl":
        config = Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": mrope},
            vision_config={**vision, "tokens_per_second": 2},
            **{f"{role}_token_id": MEDIA_IDS[role] for role in _VL_ROLES},
            tie_word_embeddings=tied,
        )
        model = Qwen2_5_VLForConditionalGeneration(config)
    elif family == "qwen3_vl":
        rope = {"mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 1e4}
        own = {"head_dim": 16, "rope_parameters": {"rope_type": "default"} | rope}
        config = Qwen3VLConfig(
            text_config={**text, **own, **(changes or {})},
            vision_config={**(given or DEEP_FRAMES), "out_hidden_size": text["hidden_size"]},
            **{f"{role}_token_id": MEDIA_IDS[role] for role in _VL_ROLES},
            tie_word_embeddings=tied,
        )
        model = Qwen3VLForConditionalGeneration(config)
    elif family == "llava_next":
        decoder = (changes or {}).pop("decoder", "llama")
        own = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
        own |= _DECODERS[decoder][2]
        config = LlavaNextConfig(
            text_config=_DECODERS[decoder][0](**text, **own, tie_word_embeddings=tied),
            vision_config=CLIPVisionConfig(**(given or TILES)),
            image_token_index=VOCAB_SIZE,
            image_grid_pinpoints=PINPOINTS,
            tie_word_embeddings=tied,
            **(changes or {}),
        )
        model = LlavaNextForConditionalGeneration(config)
    elif family == "qwen2_5_omni_thinker":
        config = Qwen2_5OmniThinkerConfig(
            text_config={**text, "rope_parameters": mrope},
            vision_config=vision,
            audio_config={**(audio or SMALL_EAR), "output_dim": text["hidden_size"]},
            **{f"{role}_token_id": token for role, token in MEDIA_IDS.items()},
            tie_word_embeddings=tied,
        )
        model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    else:
        raise ValueError(f"no tiny checkpoint of family {family!r}")
    return save(folder, model, family)


def save(folder: Path, model: PreTrainedModel, family: str) -> Tiny:
    """Write a model as a checkpoint with the tokenizer of a family, all its weights random."""
    _randomize(model)
    model = model.eval()
    model.save_pretrained(folder)
    write_tokenizer(folder, family)
    if family == "llava_next":
        _write_tile_settings(Path(folder), model.config)
    if family == "qwen3_vl":
        _write_deep_settings(Path(folder), model.config.vision_config)
    return Tiny(Path(folder), model)


def _write_tile_settings(folder: Path, config: LlavaNextConfig) -> None:
    """The settings of processors, in two files as on the hub."""
    side = config.vision_config.image_size
    images = {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_grid_pinpoints": config.image_grid_pinpoints,
        "do_center_crop": True,
        "aspect_ratio_setting": "anyres",
    }
    joint = {
        "processor_class": "LlavaNextProcessor",
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "processor_config.json").write_text(json.dumps(joint))


def _write_deep_settings(folder: Path, config: Qwen3VLVisionConfig) -> None:
    """The settings of processors, in two files as on the hub."""
    shared = {
        "processor_class": "Qwen3VLProcessor",
        "patch_size": config.patch_size,
        "merge_size": config.spatial_merge_size,
        "temporal_patch_size": config.temporal_patch_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    images = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
    }
    videos = {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "size": {"shortest_edge": 4096, "longest_edge": 25_165_824},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(shared | images))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(shared | videos))


def _randomize(model: torch.nn.Module) -> None:
    """Zeros and ones hide bugs: every norm and bias is random, too."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(center + 0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)


def update_config(folder: Path, **fields) -> None:
    """Change fields of a checkpoint's `config.json`."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
