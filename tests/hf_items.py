"""Items as transformers embeds them: its tokenizer, template, image processor, positions, model."""

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lco_jax.data.encoded import Picture
from tests.tiny import Tiny


def embed(
    checkpoint: Tiny,
    *,
    text: str = "",
    images: list[Image.Image] = (),
    clips: list[Picture] = (),
    prompt: str,
    max_pixels: int = 1280 * 28 * 28,
) -> np.ndarray:
    """The unit vector of one item: images, clips (whose patches are given), text, prompt."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    config = checkpoint.model.config
    parts = [*({"type": "image"} for _ in images), *({"type": "video"} for _ in clips)]
    parts.append({"type": "text", "text": text + prompt})
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
    )
    inputs: dict[str, torch.Tensor] = {}
    counts = {config.image_token_id: [], config.video_token_id: []}
    if images:
        processor = Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": max_pixels}
        )
        found = processor(images=list(images), return_tensors="pt")
        inputs |= {"pixel_values": found.pixel_values, "image_grid_thw": found.image_grid_thw}
        counts[config.image_token_id] = (found.image_grid_thw.prod(-1) // 4).tolist()
    if clips:
        grids = torch.tensor([clip.grid[:3] for clip in clips])
        seconds = torch.tensor([clip.grid.seconds_per_frame for clip in clips])
        patches = torch.tensor(np.concatenate([clip.patches for clip in clips]))
        inputs |= {"pixel_values_videos": patches, "video_grid_thw": grids}
        is_omni = "omni" in config.model_type
        inputs["video_second_per_grid" if is_omni else "second_per_grid_ts"] = seconds
        counts[config.video_token_id] = (grids.prod(-1) // 4).tolist()
    tokens = []
    for token in tokenizer(rendered, add_special_tokens=False).input_ids:
        tokens += [token] * (counts[token].pop(0) if counts.get(token) else 1)
    ids = torch.tensor([tokens])
    if config.model_type == "qwen2_5_vl":
        kinds = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        inputs["mm_token_type_ids"] = kinds
    else:
        inputs["attention_mask"] = torch.ones_like(ids)
    with torch.no_grad():
        out = checkpoint.model.model(input_ids=ids, **inputs)
    return torch.nn.functional.normalize(out.last_hidden_state[0, -1], dim=0).numpy()
