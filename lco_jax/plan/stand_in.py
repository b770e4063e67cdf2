"""What stands in for a base model or data that are not on this machine: a tokenizer, and examples
of assumed sizes."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
from PIL import Image

from lco_jax.config import JsonlSource, Source, TableSource, TfdsSource, TrainConfig
from lco_jax.data.encode.encoded import Content, Kind
from lco_jax.data.encode.processor import Processor
from lco_jax.data.records import MediaSource, Triplet
from lco_jax.data.sources.open import open_source
from lco_jax.models.config import ModelConfig, public_config, read_config
from lco_jax.objectives.traits import Assumed, traits_of
from lco_jax.plan.assumed_batch import largest_image
from lco_jax.plan.stand_in_tokenizer import write_tokenizer
from lco_jax.train.manifest import underlying

_PROMPT_TOKENS = 15
"""Of an item, behind its text: what is asked, the end of the turn, and the start of the answer."""
_SPREAD = 0.75
"""Assumed lengths lie within this share of their mean, so that shards differ."""


@dataclasses.dataclass(frozen=True)
class OnHand:
    """What there is of a run's inputs, and stand-ins for the rest."""

    config: TrainConfig
    """With sources that can be opened."""
    folder: Path
    """A hub folder, or one with nothing but a tokenizer."""
    sizes: ModelConfig
    assumed: tuple[str, ...]
    """What is missing, and what was assumed instead; empty: nothing."""
    has_all_data: bool
    image: Path | None
    """The one that all assumed items have (None: no source was assumed)."""


@contextlib.contextmanager
def on_hand(config: TrainConfig, num_steps: int) -> Iterator[OnHand]:
    """The model's folder and the sources of a stage, with stand-ins that last for `num_steps`.

    Raises:
        ValueError: a source that is there is bad, or the sizes of the model are not known.
    """
    assumed = []
    config = dataclasses.replace(config, model=underlying(config.model))
    with tempfile.TemporaryDirectory(prefix="lco_jax_rehearsal_") as name:
        scratch = Path(name)
        folder = _local_folder(config.model.path, config.model.revision)
        sizes = public_config(config.model.path) if folder is None else read_config(folder)
        if folder is None:
            assumed.append(
                f"{config.model.path} is not on this machine: words and signs are counted as tokens"
            )
            folder = scratch
            write_tokenizer(scratch, sizes)
        kind = traits_of(config.objective).record_kind
        sources, image = [], None
        for number, source in enumerate(config.data.sources):
            try:
                open_source(source, kind, skip_bad=config.data.media.on_error == "skip")
            except FileNotFoundError:
                file = scratch / f"{number}.jsonl"
                image = image or _write_image(scratch, config, sizes)
                records, what = _assume_examples(config, image, num_steps, number)
                file.write_text("\n".join(map(json.dumps, records)) + "\n")
                assumed.append(f"{name_of(source)} is not on this machine: {what}")
                source = JsonlSource(str(file), source.weight)
            sources.append(source)
        assumed += _held_out_missing(config)
        data = dataclasses.replace(config.data, sources=tuple(sources))
        complete = data == config.data
        config = dataclasses.replace(config, data=data)
        yield OnHand(config, folder, sizes, tuple(assumed), complete, image)


def _held_out_missing(config: TrainConfig) -> list[str]:
    """What the evaluation of a run would read and is not here."""
    if config.evaluation is None:
        return []
    missing = []
    for source in (config.evaluation.source, *config.evaluation.others):
        try:
            open_source(source)
        except FileNotFoundError:
            missing.append(f"{name_of(source)} is not on this machine: it was not looked at")
    return missing


def name_of(source: Source) -> str:
    """A source as a reader of the config knows it."""
    if isinstance(source, TfdsSource):
        return f"dataset {source.name}, split {source.split}"
    return " ".join(source.paths) if isinstance(source, TableSource) else source.path


def _local_folder(model: str, revision: str | None) -> Path | None:
    """The folder of a model that is on this machine; None if it would be downloaded."""
    if Path(model).is_dir():
        return Path(model)
    try:
        found = huggingface_hub.try_to_load_from_cache(model, "tokenizer.json", revision=revision)
    except ValueError:  # a path, which is no hub id
        return None
    return Path(found).parent if isinstance(found, str) else None


class ReadOnce:
    """A cache of the one image of all assumed items, which is read once and not for each of them.

    Args:
        image: None, if no item is assumed to have one.
    """

    def __init__(self, image: Path | None):
        self._image, self._key = image, self.key("image", str(image))
        self._content: tuple[Content, ...] | None = None

    def fill(self, processor: Processor) -> None:
        """Read it."""
        if self._image is not None:
            self._content = processor.read_medium("image", str(self._image))

    def key(self, kind: Kind, source: MediaSource) -> str:
        """The kind and the path; media in bytes have no name here."""
        return f"{kind} {source}" if isinstance(source, str) else ""

    def load(self, key: str) -> tuple[Content, ...] | None:
        """What was read (None: it is another medium)."""
        return self._content if key == self._key else None


# --------------------------------------------------------------------------- assumed examples


def _assume_examples(
    config: TrainConfig, image: Path | None, num_steps: int, seed: int
) -> tuple[list[dict], str]:
    """Records for some steps of one source, and what they are like."""
    assumed = traits_of(config.objective).assume(config)
    rng = np.random.default_rng(seed)
    is_triplet = traits_of(config.objective).record_kind is Triplet
    share = assumed.image_share if image else 0.0
    said = f"assumed items of {assumed.item_tokens} tokens"
    if share:
        said += f", {share:.0%} of them with an image of the largest size"
    count = num_steps * config.data.batch_size
    make = _triplets if is_triplet else _exchanges
    return make(config, assumed, image, share, count, rng), said


def _triplets(config, assumed: Assumed, image, share, count, rng) -> list[dict]:
    mean = max(1, assumed.item_tokens - _PROMPT_TOKENS)
    lengths = rng.integers(*_around(mean), (count, assumed.roles), endpoint=True)
    shown = rng.random((count, assumed.roles)) < share
    records = []
    for own, images in zip(lengths.tolist(), shown.tolist(), strict=True):
        anchor, positive, *negatives = (
            {"text": _text(length), "image_path": str(image) if has_image else ""}
            for length, has_image in zip(own, images, strict=True)
        )
        records.append({"anchor": anchor, "positive": positive, "negatives": negatives})
    return records


def _exchanges(config, assumed: Assumed, image, share, count, rng) -> list[dict]:
    response = config.objective.max_response_tokens
    mean = max(1, assumed.item_tokens - response - _PROMPT_TOKENS)
    lengths = rng.integers(*_around(mean), count, endpoint=True).tolist()
    shown = (rng.random(count) < share).tolist()
    return [
        {
            "prompt": {"text": _text(length), "image_path": str(image) if has_image else ""},
            "response": _text(response),
        }
        for length, has_image in zip(lengths, shown, strict=True)
    ]


def _around(mean: int) -> tuple[int, int]:
    reach = int(_SPREAD * mean)
    return mean - reach, mean + reach


def _text(num_tokens: int) -> str:
    return " ".join(["word"] * num_tokens)


def _write_image(folder: Path, config: TrainConfig, sizes: ModelConfig) -> Path | None:
    """An image of as many tokens as the config allows; None if the run loads no vision tower."""
    towers = config.model.towers
    if sizes.vision is None or (towers is not None and "vision" not in towers):
        return None
    height, width = largest_image(config, sizes).size_px
    file = folder / "largest.png"
    Image.new("RGB", (width, height)).save(file)
    return file
