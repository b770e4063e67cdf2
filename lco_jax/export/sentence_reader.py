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
from lco_jax.export.probes import Probes, modality_of
from lco_jax.export.sentence_transformers import MEDIA_VIEW, TEXT_VIEW
from lco_jax.models.families import Family

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 4


def encode(
    folder: Path, family: Family, recipe: Mapping[str, Any], probes: Probes
) -> tuple[dict[int, Float[np.ndarray, "E"]], str | None]:
    """Vectors of the probes that can be embedded here, by index, and why others cannot."""
    items = [probe.item for probe in probes.probes]
    kinds = set(family.readable_kinds(recipe["markup"], recipe["media"]["after_video"]))
    views = _views(folder, items, kinds)
    found: dict[int, np.ndarray] = {}
    reasons = []
    if "video" in recipe["markup"] and "video" not in kinds:
        media = family.torch_media
        differs = "gives the text behind them other positions"
        if media and not media.bounds_frames:
            differs = "reads them at other sizes"
        reasons.append(f"videos, because transformers {differs}")
    for view, chosen in views.items():
        if not chosen:
            continue
        if view == MEDIA_VIEW and importlib.util.find_spec("torchvision") is None:
            reasons.append("videos and audio, because torchvision is not installed")
        else:
            inputs = [to_input(items[index]) for index in chosen]
            found |= zip(chosen, _encode(_load(folder, view), inputs), strict=True)
            # A 7B model in float32 takes 30 GB; only one at a time is held.
            gc.collect()
    return found, "; ".join(reasons) or None


def _views(folder: Path, items: list[Item], kinds: set[str]) -> dict[str, list[int]]:
    """The items that each view of the folder is to embed, by index: every item once."""
    views: dict[str, list[int]] = {TEXT_VIEW: [], "": [], MEDIA_VIEW: []}
    for index, item in enumerate(items):
        own = set(modality_of(item).split("+")) - {"text"}
        if not own:
            views[TEXT_VIEW if (folder / TEXT_VIEW).exists() else ""].append(index)
        elif own <= kinds:
            views["" if own == {"image"} else MEDIA_VIEW].append(index)
    return views


def to_input(item: Item) -> str | dict[str, Any]:
    """An item as sentence-transformers takes it; videos with all their frames."""
    if not item.has_media:
        return item.text
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


def _load(folder: Path, view: str) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder),
        device="cpu",
        model_kwargs={"dtype": torch.float32},
        processor_kwargs={"subfolder": view} if view else None,
        local_files_only=True,
    )


def _encode(model: "SentenceTransformer", inputs: list[Any]) -> Float[np.ndarray, "N E"]:
    return model.encode(inputs, batch_size=_BATCH, show_progress_bar=False)
