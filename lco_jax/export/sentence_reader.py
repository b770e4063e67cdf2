"""Probes as sentence-transformers embeds them from an export."""

import gc
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageSequence

from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import SAMPLE_RATE_HZ, MelConfig
from lco_jax.data.records import Item, MediaSource
from lco_jax.export.probes import Probes
from lco_jax.export.sentence_transformers import TEXT_VIEW
from lco_jax.models.families import Family

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 4


def encode(
    folder: Path, family: Family, recipe: Mapping[str, Any], probes: Probes
) -> tuple[dict[int, Float[np.ndarray, "E"]], str | None]:
    """Vectors of the probes that can be embedded here, by index, and why others cannot."""
    items = [probe.item for probe in probes.probes]
    texts = [index for index, item in enumerate(items) if not item.has_media]
    media = [index for index, item in enumerate(items) if item.has_media]
    model = _load(folder, has_text_view=(folder / TEXT_VIEW).exists())
    found = dict(zip(texts, _encode(model, [items[i].text for i in texts]), strict=True))
    if not media:
        return found, None
    # A 7B model in float32 takes 30 GB; only one at a time is held.
    del model
    gc.collect()
    if importlib.util.find_spec("torchvision") is None:
        return found, "media, because torchvision is not installed"
    reason = None
    after_video = recipe["media"]["after_video"]
    if "video" in recipe["markup"] and not family.torch_places_videos(after_video):
        reason = "videos, because transformers gives the text behind them other positions"
        media = [index for index in media if not items[index].videos]
    inputs = [to_input(items[index]) for index in media]
    return found | dict(zip(media, _encode(_load(folder), inputs), strict=True)), reason


def to_input(item: Item) -> dict[str, Any]:
    """An item as sentence-transformers takes it; videos with all their frames."""
    parts: dict[str, Any] = {}
    if item.images:
        parts["image"] = [Image.open(io.BytesIO(image)) for image in item.images]
    if item.videos:
        (video,) = item.videos
        parts["video"] = _video(video)
    if item.audios:
        (audio,) = item.audios
        samples = load_audio(audio, MelConfig())
        parts["audio"] = {"array": samples, "sampling_rate": SAMPLE_RATE_HZ}
    return parts | ({"text": item.text} if item.text else {})


def _video(source: MediaSource) -> dict[str, Any]:
    image = Image.open(io.BytesIO(source))
    frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
    rate = {"fps": 1000 / image.info["duration"], "total_num_frames": len(frames)}
    return {
        "array": frames,
        "video_metadata": {**rate, "frames_indices": list(range(len(frames)))},
    }


def _load(folder: Path, *, has_text_view: bool = False) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder),
        device="cpu",
        model_kwargs={"dtype": torch.float32},
        processor_kwargs={"subfolder": TEXT_VIEW} if has_text_view else None,
        local_files_only=True,
    )


def _encode(model: "SentenceTransformer", inputs: list[Any]) -> Float[np.ndarray, "N E"]:
    return model.encode(inputs, batch_size=_BATCH, show_progress_bar=False)
