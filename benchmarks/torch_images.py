"""The torch program that embeds images for `benchmarks.images`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.image_prompts import ImagePrompts
from benchmarks.report import Work


class ImageEmbedding:
    """Left-padded batches, sorted by size, through the bare model."""

    def __init__(self, folder: Path, dtype: str):
        self._dtype = getattr(torch, dtype)
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=self._dtype)
        self._model = model.eval().model
        self._prompts = ImagePrompts(folder)

    def run(self, task: tuple[Sequence[bytes], int]) -> Work:
        """Embed encoded images in batches of the given size."""
        files, batch_size = task
        vectors = np.zeros((len(files), self._model.config.text_config.hidden_size), np.float32)
        with torch.inference_mode():
            for chosen, features in self._prompts.batches(files, batch_size):
                vectors[chosen] = self._embed(features)
        return Work(1, 1, vectors=vectors)

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in the dtype of the model."""
        rows, inner, columns = shape
        x, y = (torch.randn(*size, dtype=self._dtype) for size in ((rows, inner), (inner, columns)))
        return lambda: torch.mm(x, y)

    def _embed(self, features: dict[str, np.ndarray]) -> np.ndarray:
        inputs = {name: torch.from_numpy(values) for name, values in features.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(self._dtype)
        states = self._model(**inputs).last_hidden_state
        return torch.nn.functional.normalize(states[:, -1].float(), dim=-1).numpy()
