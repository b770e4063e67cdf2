"""The torch program that embeds images for `benchmarks.images`, and its random checkpoint."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.report import Work
from tests.tokenizers import MEDIA_IDS, write_tokenizer

_PROMPT = "\nSummarize the above image in one word:"
_MAX_PIXELS = 1280 * 28 * 28


def write_checkpoint(folder: Path, dtype: str) -> None:
    """A random Qwen2.5-VL of middle size: a decoder of 60 M weights and a tower of 49 M."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
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
        },
        vision_config={
            "depth": 12,
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_heads": 8,
            "fullatt_block_indexes": [2, 5, 8, 11],
            "out_hidden_size": 768,
            "tokens_per_second": 2,
        },
        **{
            f"{role}_token_id": MEDIA_IDS[role]
            for role in ("vision_start", "vision_end", "image", "video")
        },
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    write_tokenizer(folder, "qwen2_5_vl")


class ImageEmbedding:
    """Left-padded batches, sorted by size, through the bare model."""

    def __init__(self, folder: Path, dtype: str):
        self._dtype = getattr(torch, dtype)
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=self._dtype)
        self._model = model.eval().model
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._processor = Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": _MAX_PIXELS}
        )
        turn = [{"type": "image"}, {"type": "text", "text": _PROMPT}]
        rendered = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
        )
        self._prompt = self._tokenizer(rendered, add_special_tokens=False).input_ids

    def run(self, task: tuple[Sequence[bytes], int]) -> Work:
        """Embed encoded images in batches of the given size."""
        files, batch_size = task
        images = [Image.open(io.BytesIO(content)).convert("RGB") for content in files]
        order = np.argsort([-image.width * image.height for image in images], kind="stable")
        vectors = np.zeros((len(images), self._model.config.text_config.hidden_size), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                vectors[chosen] = self._embed([images[index] for index in chosen])
        return Work(1, 1, vectors=vectors)

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in the dtype of the model."""
        rows, inner, columns = shape
        x, y = (torch.randn(*size, dtype=self._dtype) for size in ((rows, inner), (inner, columns)))
        return lambda: torch.mm(x, y)

    def _embed(self, images: list[Image.Image]) -> np.ndarray:
        pixels = self._processor(images=images, return_tensors="pt")
        counts = pixels.image_grid_thw.prod(-1) // 4
        image_token = MEDIA_IDS["image"]
        rows = []
        for count in counts.tolist():
            at = self._prompt.index(image_token)
            rows.append([*self._prompt[:at], *[image_token] * count, *self._prompt[at + 1 :]])
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=pixels.pixel_values.to(self._dtype),
            image_grid_thw=pixels.image_grid_thw,
            mm_token_type_ids=(ids == image_token).int(),
        )
        return torch.nn.functional.normalize(out.last_hidden_state[:, -1].float(), dim=-1).numpy()
