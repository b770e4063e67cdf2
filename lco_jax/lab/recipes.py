"""The recipes of the lab: the paper in miniature on real data, which `configs/` names."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from lco_jax.config import (
    PREVIOUS_STAGE,
    Alignment,
    CheckpointConfig,
    Contrastive,
    DataConfig,
    Evaluation,
    Generative,
    Lora,
    MediaConfig,
    Memory,
    ModelRef,
    OptimizerConfig,
    Samples,
    Stage,
    Stages,
    TfdsSource,
    Towers,
    TrainConfig,
)
from lco_jax.runtime.caches import cache_folder

LAB_MODEL = str(cache_folder() / "lab-omni")
"""The small omni model that `launch/fetch.py --omni` puts together."""
_PIXELS = 56 * 56
_MEDIA = MediaConfig(image_max_pixels=_PIXELS, video_min_pixels=_PIXELS, video_max_pixels=_PIXELS)
"""Images and frames of videos at the size that the vision tower learns from."""
_TRAINING_MEDIA = replace(
    _MEDIA, audio_max_seconds=6.0, audio_when_longer="refuse", on_error="skip"
)
"""Longer recordings are left out of training; 94 % are shorter."""
_WHAT_IS_SHOWN, _WHAT_IS_SAID = "\nWhat is in this picture?", "\nWrite down what is said."
_ASKED = {
    "emoji": _WHAT_IS_SHOWN,
    "openclipart": _WHAT_IS_SHOWN,
    "spoken": _WHAT_IS_SAID,
    "synthetic_speech": _WHAT_IS_SAID,
}
"""By dataset."""
_TOKEN_PX = 14
_SEADOC_LAYERS = 6
"""Of the decoder's 30: one core takes seconds a step."""


_TEXTS = (TfdsSource("wordnet"),)
_MISREAD_TEXTS = (
    *_TEXTS,
    TfdsSource("spoken", misread="heard"),
    TfdsSource("emoji", misread="seen", response="keywords"),
)
"""Beside WordNet the transcripts of recordings and the names of images that a model was aligned
with, each found by what an imperfect reader makes of it: texts alone."""


def quickstart() -> Stages:
    """Alignment of the lab's small omni model, then refinement with text only."""
    refine = replace(
        lab_refinement(
            num_layers=None,
            num_steps=32,
            seed=42,
            sources=_MISREAD_TEXTS,
        ),
        objective=Contrastive(symmetric=True, mask_duplicates=True),
    )
    return Stages(
        (Stage("align", lab_alignment(num_steps=200)), Stage("refine", refine)),
        samples=lab_samples("align"),
    )


def lab_alignment(
    *,
    num_steps: int,
    seed: int = 42,
    images: Mapping[str, int] = MappingProxyType({"emoji": 30}),
    audio: Mapping[str, int] = MappingProxyType({"spoken": 18}),
    least_shape: tuple[int, int, int] = (10, 8, 32),
) -> TrainConfig:
    """Vision tower and projectors learn to speak the decoder's tokens: images their names and
    keywords, recordings their transcripts. The audio tower stays as it is: its features tell words
    apart.

    Args:
        images: how many of a dataset are in a batch, half of them with their keywords.
        audio: how many recordings, likewise.
        least_shape: one for nearly all batches, so that few programs are compiled.
    """
    sources = [TfdsSource(name, weight=float(count)) for name, count in audio.items()]
    for name, count in images.items():
        sources.append(TfdsSource(name, weight=count / 2))
        sources.append(TfdsSource(name, response="keywords", weight=count / 2))
    return TrainConfig(
        model=ModelRef(
            LAB_MODEL,
            trainable=Towers(vision=1.0, audio=0.0, projectors=1.0),
            dtype="float32",
        ),
        data=DataConfig(
            sources=tuple(sources),
            batch_size=sum(images.values()) + sum(audio.values()),
            media=_TRAINING_MEDIA,
        ),
        objective=Alignment(),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=10),
        num_steps=num_steps,
        seed=seed,
        memory=Memory(row_tokens=(256,), frame_rows=(256,), least_shape=least_shape),
        checkpoint=CheckpointConfig(every_steps=20),
    )


def lab_refinement(
    *,
    num_layers: int | None,
    num_steps: int,
    seed: int,
    batch_size: int = 32,
    sources: tuple[TfdsSource, ...] = _TEXTS,
    features: Literal["all", "tokens"] = "tokens",
) -> TrainConfig:
    """Low-rank factors on the decoder learn from texts; images and audio are only measured.

    Args:
        features: what is read of them, as `audio_features` and `image_features` of a `MediaConfig`.
    """
    held_out = tuple(TfdsSource(name, split="test") for name in ("emoji", "spoken"))
    return TrainConfig(
        model=ModelRef(
            PREVIOUS_STAGE,
            trainable=Lora(rank=16, alpha=32, dropout=0.05),
            dtype="float32",
            num_layers=num_layers,
        ),
        data=DataConfig(
            sources=sources,
            batch_size=batch_size,
            media=replace(_MEDIA, audio_features=features, image_features=features),
        ),
        optimizer=OptimizerConfig(peak_lr=6e-4, warmup_steps=10),
        num_steps=num_steps,
        seed=seed,
        evaluation=Evaluation(TfdsSource("wordnet", split="test"), num_pairs=200, others=held_out),
        checkpoint=CheckpointConfig(every_steps=10),
    )


def lab_full(*, decoder: Lora | None, seed: int = 42) -> Stages:
    """The faithful version: after alignment the towers learn through all layers of the decoder what
    to say of images and recordings; then the decoder is refined with text only.

    Args:
        decoder: what of the decoder trains while it speaks (None: nothing).
    """
    align = lab_alignment(
        num_steps=400,
        seed=seed,
        images={"emoji": 36, "openclipart": 12},
        audio={"spoken": 8, "synthetic_speech": 8},
        least_shape=(16, 12, 32),
    )
    speak = replace(
        lab_speaking(
            decoder=decoder,
            batches={"spoken": 5, "synthetic_speech": 4, "emoji": 12, "openclipart": 3},
            num_steps=160,
            peak_lr=5e-4,
        ),
        seed=seed,
    )
    speak = replace(
        speak,
        model=replace(speak.model, path=PREVIOUS_STAGE),
        data=replace(speak.data, media=_TRAINING_MEDIA),
        memory=Memory(row_tokens=(256,), frame_rows=(256,), least_shape=(6, 4, 16)),
    )
    refine = lab_refinement(num_layers=None, num_steps=60, seed=seed, features="all")
    return Stages(
        (Stage("align", align), Stage("speak", speak), Stage("refine", refine)),
        samples=lab_samples("speak"),
    )


def lab_overfit() -> TrainConfig:
    """The lab's model learns 32 emoji and 10 spoken prompts by heart, through all layers."""
    config = lab_speaking(
        decoder=Lora(rank=16, alpha=32, dropout=0.0),
        batches={"emoji": 32, "spoken": 10},
        num_steps=80,
        peak_lr=1e-3,
    )
    sources = tuple(
        replace(source, max_examples=int(source.weight)) for source in config.data.sources
    )
    return replace(config, data=replace(config.data, sources=sources))


def lab_speaking(
    *, decoder: Lora | None, batches: Mapping[str, int], num_steps: int, peak_lr: float
) -> TrainConfig:
    """The lab's model learns through its decoder what images are called and what recordings say.

    Args:
        batches: how many of a dataset are in a batch.
    """
    return TrainConfig(
        model=ModelRef(
            LAB_MODEL,
            trainable=Towers(vision=1.0, audio=0.2, projectors=1.0, decoder=decoder),
            dtype="float32",
        ),
        data=DataConfig(
            sources=tuple(
                TfdsSource(name, prompt=_ASKED[name], weight=float(count))
                for name, count in batches.items()
            ),
            batch_size=sum(batches.values()),
            media=_MEDIA,
        ),
        objective=Generative(max_response_tokens=64),
        optimizer=OptimizerConfig(peak_lr=peak_lr, warmup_steps=10),
        num_steps=num_steps,
        memory=Memory(frame_rows=(256,)),
        checkpoint=CheckpointConfig(every_steps=10),
    )


def lab_samples(stage: str) -> Samples:
    """Three captions and two transcripts by the model that a stage leaves."""
    sources = tuple(
        TfdsSource(name, split="test", prompt=_ASKED[name], max_examples=count)
        for name, count in (("emoji", 3), ("spoken", 2))
    )
    return Samples(stage, sources)


def seadoc_small(*, page_tokens: int, captions: bool = False) -> Stages:
    """The arms of `seadoc` in small: Indonesian help pages, the lab's omni model, WordNet.

    Every arm sees as many pages as the others; captions (names of emoji) come on top.

    Args:
        page_tokens: pages are scaled down to this many tokens, a square number.
        captions: whether a batch has as many captioned images as pages.
    """
    pages_per_step = 8
    sources = (TfdsSource("libreoffice/id", prompt="Read the page.", response="text"),)
    if captions:
        sources += (TfdsSource("emoji", prompt="Describe the picture.", response="name"),)
    checkpoint = CheckpointConfig(every_steps=5, keep_last=1)
    memory = Memory(frame_rows=(128, 256, 512))  # 100 to 400 patches of a page
    # A pixel more than the square, or rounding could cost a row of tokens.
    media = MediaConfig(image_max_pixels=page_tokens * _TOKEN_PX**2 + 1)
    read = TrainConfig(
        model=ModelRef(
            LAB_MODEL,
            trainable=Towers(vision=1.0, audio=0.0, projectors=1.0, decoder=Lora(16, 32)),
            dtype="float32",
            num_layers=_SEADOC_LAYERS,
            towers=("vision",),
        ),
        data=DataConfig(sources=sources, batch_size=pages_per_step * len(sources), media=media),
        objective=Generative(max_response_tokens=24),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=5),
        num_steps=20,
        memory=memory,
        checkpoint=checkpoint,
    )
    refine = TrainConfig(
        model=ModelRef(
            PREVIOUS_STAGE, trainable=Lora(rank=16, alpha=32), dtype="float32", towers=()
        ),
        data=DataConfig(sources=(TfdsSource("wordnet"),), batch_size=16, media=media),
        optimizer=OptimizerConfig(peak_lr=6e-4, warmup_steps=5),
        num_steps=20,
        memory=memory,
        checkpoint=checkpoint,
    )
    return Stages((Stage("read", read), Stage("refine", refine)))
