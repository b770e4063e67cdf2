"""mteb's own LCOEmbedding on a tiny Omni checkpoint, and the rows of data that it is given.

A program of its own, because transformers looks for torchvision once, when it is imported:
`python wrapper.py FOLDER` embeds all rows with the checkpoint in `FOLDER` and writes what the model
was given, and its vectors, to `FOLDER/wrapper.npz`.
"""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from tests.data.media_files import random_image

MIN_PIXELS, MAX_PIXELS = 6 * 28 * 28, 12 * 28 * 28
"""Of images in the checkpoint: neither the defaults of transformers nor ours."""
LONG = "a person on a horse jumps over a broken down airplane " * 40


class Film:
    """A decoder of frames as mteb's collator uses one."""

    def __init__(self, num_frames: int, fps: float, size: tuple[int, int], seed: int = 0):
        rng = np.random.default_rng(seed)
        self.frames = torch.tensor(rng.integers(0, 256, (num_frames, 3, *size), np.uint8))
        self.metadata = types.SimpleNamespace(
            end_stream_seconds=num_frames / fps, num_frames=num_frames
        )

    def get_frames_at(self, indices: list[int]) -> Any:
        """The frames of these numbers, in `data`."""
        return types.SimpleNamespace(data=self.frames[indices])


def sound(seconds: float, seed: int) -> dict[str, Any]:
    samples = np.random.default_rng(seed).normal(0, 0.2, round(16_000 * seconds))
    return {"array": samples.astype(np.float32), "sampling_rate": 16_000}


EXACT = (12 * 28, 12 * 28)
"""Frames of 144 tokens, within the bounds of Omni's processor: they are not scaled."""


def rows() -> dict[str, list[dict[str, Any]]]:
    """What each task's data loader gives: two rows a batch."""
    return {
        "text": [{"text": "a small red fox"}, {"text": LONG}, {"text": ""}, {"text": " a  b\n"}],
        "image": [
            {"image": random_image(1, (84, 84))},
            {"image": random_image(2, (300, 40))},  # more pixels than the checkpoint allows
            {"image": random_image(3, (20, 31))},  # fewer
            {"image": Image.new("RGBA", (90, 57), (200, 10, 30, 90))},
        ],
        "image+text": [
            {"text": "which of them", "image": random_image(4, (120, 61))},
            {"text": LONG, "image": random_image(5, (33, 97))},
        ],
        "audio": [{"audio": sound(1.31, 0)}, {"audio": sound(4.02, 1)}],
        "video": [
            {"video": Film(24, 8.0, EXACT)},  # 3 s: six frames
            {"video": Film(29, 8.0, EXACT, 1)},  # 3.6 s: seven, the last of them twice
            {"video": Film(9, 8.0, EXACT, 2)},  # 1.1 s: two
            {"video": Film(5, 8.0, EXACT, 3)},  # .6 s: a single one
        ],
        "everything": [
            {
                "text": "all of it",
                "video": Film(21, 8.0, EXACT, 4),
                "audio": sound(0.9, 2),
                "image": random_image(6, (64, 48)),
            }
        ],
    }


class _Rows(list):
    @property
    def features(self) -> set[str]:
        return set(self[0])


def loader(kind: str) -> DataLoader:
    """As mteb makes one. Its collators change the rows, so that each is used once."""

    def collate(batch: list[dict]) -> dict[str, list]:
        return {name: [row[name] for row in batch] for name in batch[0]}

    return DataLoader(_Rows(rows()[kind]), batch_size=2, collate_fn=collate)


def main(folder: Path) -> None:
    # Only what has another rate than 16 kHz is resampled, which is nothing here.
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    from mteb.models.model_implementations.lco_embedding_models import LCOEmbedding
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    wrapper = LCOEmbedding(str(folder), device="cpu")
    # Its bfloat16 and the scaling of torchvision, which is some grey levels off, hide differences.
    wrapper.model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder).eval()
    wrapper.processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    given: list[np.ndarray] = []
    _record(wrapper.model, given)
    found: dict[str, np.ndarray] = {}
    for kind in rows():
        given.clear()
        vectors = wrapper.encode(loader(kind), task_metadata=None, hf_split="", hf_subset="")
        found[f"{kind}/vectors"] = vectors.numpy()
        for index, tokens in enumerate(given):
            found[f"{kind}/{index}"] = tokens
    np.savez(folder / "wrapper.npz", **found)


def _record(model: torch.nn.Module, given: list[np.ndarray]) -> None:
    """Append the tokens and the positions (n 4) of every item that the decoder is given."""
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def outer(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        batches.append((inputs["input_ids"], inputs["attention_mask"]))

    def inner(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        ids, mask = batches.pop()
        for number, real in enumerate(mask.bool()):
            if inputs["position_ids"] is None:  # batches of texts: one after the other
                positions = torch.arange(int(real.sum()))[:, None].expand(-1, 3)
            else:
                positions = inputs["position_ids"][-3:, number, real].T
            given.append(torch.cat([ids[number, real, None], positions], dim=1).numpy())

    hook: Callable = model.register_forward_pre_hook
    hook(outer, with_kwargs=True)
    model.model.language_model.register_forward_pre_hook(inner, with_kwargs=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
