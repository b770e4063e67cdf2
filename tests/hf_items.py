"""Items as transformers embeds them: its tokenizer, template, image processor, positions, model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaNextProcessor, WhisperFeatureExtractor
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lco_jax.data.encode.encoded import Visual
from tests.patches import pixels_of
from tests.tiny import Tiny


def embed(checkpoint: Tiny, **item) -> np.ndarray:
    """The unit vector of one item, given as `make_inputs` takes it."""
    inputs = make_inputs(checkpoint, **item)
    return run(checkpoint, inputs.pop("input_ids"), **inputs)


def make_inputs(
    checkpoint: Tiny,
    *,
    text: str = "",
    images: list[Image.Image] = (),
    clips: list[Visual] = (),
    sounds: list[np.ndarray] = (),
    prompt: str = "",
    max_pixels: int = 1280 * 28 * 28,
    min_pixels: int = 56 * 56,
) -> dict[str, torch.Tensor]:
    """What the torch model takes for one item: images, clips (whose patches are given), sounds
    (samples at 16 kHz), text, prompt.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    config = checkpoint.model.config
    if config.model_type == "llava_next":
        return _tiled_inputs(checkpoint, text + prompt, images)
    parts = [*({"type": "image"} for _ in images), *({"type": "video"} for _ in clips)]
    parts += [{"type": "audio"} for _ in sounds]
    parts.append({"type": "text", "text": text + prompt})
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
    )
    patch_px = config.vision_config.patch_size
    is_timed = config.model_type == "qwen3_vl"
    if is_timed:
        rendered = _with_times(rendered, clips)
    inputs: dict[str, torch.Tensor] = {}
    counts = {config.image_token_id: [], config.video_token_id: []}
    if images:
        bounds = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
        processor = Qwen2VLImageProcessorPil(size=bounds)
        if is_timed:
            processor = Qwen2VLImageProcessorPil.from_pretrained(checkpoint.folder, size=bounds)
        found = processor(images=list(images), return_tensors="pt")
        inputs |= {"pixel_values": found.pixel_values, "image_grid_thw": found.image_grid_thw}
        counts[config.image_token_id] = (found.image_grid_thw.prod(-1) // 4).tolist()
    if clips:
        grids = torch.tensor([clip.grid[:3] for clip in clips])
        seconds = torch.tensor([clip.grid.seconds_per_frame for clip in clips])
        patches = torch.tensor(np.concatenate([pixels_of(clip, patch_px) for clip in clips]))
        inputs |= {"pixel_values_videos": patches, "video_grid_thw": grids}
        is_omni = "omni" in config.model_type
        if not is_timed:
            inputs["video_second_per_grid" if is_omni else "second_per_grid_ts"] = seconds
        runs = torch.repeat_interleave(grids, grids[:, 0], dim=0) if is_timed else grids
        runs[:, 0] = 1 if is_timed else runs[:, 0]
        counts[config.video_token_id] = (runs.prod(-1) // 4).tolist()
    if sounds:
        features = extract(sounds)
        inputs |= {name: features[name] for name in ("input_features", "feature_attention_mask")}
        frames = features["feature_attention_mask"].sum(-1)
        counts[config.audio_token_id] = (((frames - 1) // 2 + 1 - 2) // 2 + 1).tolist()
    tokens = []
    for token in tokenizer(rendered, add_special_tokens=False).input_ids:
        tokens += [token] * (counts[token].pop(0) if counts.get(token) else 1)
    ids = torch.tensor([tokens])
    if config.model_type in ("qwen2_5_vl", "qwen3_vl"):
        kinds = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        inputs["mm_token_type_ids"] = kinds
    else:
        inputs["attention_mask"] = torch.ones_like(ids)
    return {"input_ids": ids, **inputs}


def _with_times(rendered: str, clips: list[Visual]) -> str:
    """A turn in which each temporal patch of its clips has a run of its own, behind its time."""
    first, *rest = rendered.split("<|video_pad|>")
    for clip, piece in zip(clips, rest, strict=True):
        runs = ("<|vision_start|><|video_pad|><|vision_end|>",) * clip.grid.frames
        labels = (f"<{time:.1f} seconds>" for time in clip.grid.times)
        first += "".join(label + run for label, run in zip(labels, runs, strict=True)) + piece
    return first


def tiled_processor(folder: Path) -> LlavaNextProcessor:
    """The processor of a LLaVA-NeXT folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said = json.loads((folder / "processor_config.json").read_text())
    names = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
    return LlavaNextProcessor(
        LlavaNextImageProcessorPil.from_pretrained(folder),
        tokenizer,
        chat_template=tokenizer.chat_template,
        **{name: said[name] for name in names},
    )


def _tiled_inputs(checkpoint: Tiny, text: str, images: list[Image.Image]) -> dict[str, Any]:
    processor = tiled_processor(checkpoint.folder)
    parts = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
    turn = [{"role": "user", "content": parts}]
    said = processor.apply_chat_template(turn, add_generation_prompt=True)
    return dict(processor(text=said, images=list(images) or None, return_tensors="pt"))


def embed_film(checkpoint: Tiny, tokens: np.ndarray, clip: Visual, sound: np.ndarray) -> np.ndarray:
    """The unit vector of an item of one film with its sound, whose tokens are given."""
    ids = torch.tensor(tokens[None].astype(np.int64))
    features = extract([sound])
    return run(
        checkpoint,
        ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=torch.tensor(pixels_of(clip)),
        video_grid_thw=torch.tensor([clip.grid[:3]]),
        video_second_per_grid=torch.tensor([clip.grid.seconds_per_frame]),
        use_audio_in_video=True,
        **{name: features[name] for name in ("input_features", "feature_attention_mask")},
    )


def extract(sounds: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Mel frames as Qwen2_5OmniProcessor asks for them."""
    # A buffer of 30 s instead of the hub's 300: the frames of shorter clips do not depend on it.
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=30)
    found = extractor(
        list(sounds),
        sampling_rate=16_000,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    return {
        "input_features": found.input_features,
        "feature_attention_mask": found.attention_mask,
    }


def states(checkpoint: Tiny, **item: Any) -> np.ndarray:
    """The last token's state after the embeddings and each layer, the last one normed; arguments
    as of `make_inputs`.
    """
    with torch.no_grad():
        out = checkpoint.model.model(**make_inputs(checkpoint, **item), output_hidden_states=True)
    return np.stack([state[0, -1].numpy() for state in out.hidden_states])


def run(checkpoint: Tiny, ids: torch.Tensor, **inputs: torch.Tensor) -> np.ndarray:
    """The last state of the bare model, of length 1."""
    with torch.no_grad():
        out = checkpoint.model.model(input_ids=ids, **inputs)
    return torch.nn.functional.normalize(out.last_hidden_state[0, -1], dim=0).numpy()
