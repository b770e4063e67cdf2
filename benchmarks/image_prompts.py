"""Patches and left-padded prompts of images, for the sides that take these from a processor."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.tokenizers import MEDIA_IDS

_PROMPT = "\nSummarize the above image in one word:"
_MAX_PIXELS = 1280 * 28 * 28


class ImagePrompts:
    """The prompts of images in batches of a given size, the largest images first."""

    def __init__(self, folder: Path):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._processor = Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": _MAX_PIXELS}
        )
        turn = [{"type": "image"}, {"type": "text", "text": _PROMPT}]
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
        )
        self._prompt = tokenizer(rendered, add_special_tokens=False).input_ids

    def batches(
        self, files: Sequence[bytes], batch_size: int
    ) -> Iterator[tuple[Int[np.ndarray, "B"], dict[str, np.ndarray]]]:
        """Which of the encoded images are in a batch, and its arrays as transformers names them."""
        images = [Image.open(io.BytesIO(content)).convert("RGB") for content in files]
        order = np.argsort([-image.width * image.height for image in images], kind="stable")
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield chosen, self._features([images[index] for index in chosen])

    def _features(self, images: list[Image.Image]) -> dict[str, np.ndarray]:
        features = dict(self._processor(images=images, return_tensors="np"))
        image_token = MEDIA_IDS["image"]
        at = self._prompt.index(image_token)
        rows = [
            [*self._prompt[:at], *[image_token] * count, *self._prompt[at + 1 :]]
            for count in (features["image_grid_thw"].prod(-1) // 4).tolist()
        ]
        longest = max(map(len, rows))
        ids = np.array([[0] * (longest - len(row)) + row for row in rows])
        mask = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return features | {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == image_token).astype(np.int32),
        }
