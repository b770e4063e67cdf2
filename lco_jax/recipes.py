"""The recipes of the paper, by checkpoint; the files in `configs/` name them.

Source: LCO-Emb §4; released scripts for what the paper leaves open (warm-up, dropout, clipping,
pixels). The official trainer divides the gradient by its 32 GPUs before it clips at 1.0, which is
32 on the true gradient.
"""

from dataclasses import replace
from pathlib import Path

from lco_jax.config import (
    PREVIOUS_STAGE,
    Alignment,
    CheckpointConfig,
    DataConfig,
    Evaluation,
    Generative,
    JsonlSource,
    Lora,
    MediaConfig,
    Memory,
    MeshConfig,
    ModelRef,
    OptimizerConfig,
    Samples,
    Stage,
    Stages,
    TfdsSource,
    Towers,
    TrainConfig,
)

LAB_MODEL = str(Path("~/.cache/lco_jax/lab-omni").expanduser())
"""The small omni model that `launch/fetch.py --omni` puts together."""
_EMOJI_PIXELS = 56 * 56
_LAB_MEDIA = MediaConfig(
    image_max_pixels=_EMOJI_PIXELS, video_min_pixels=_EMOJI_PIXELS, video_max_pixels=_EMOJI_PIXELS
)
"""Pictures and frames of clips at the size that the eye learns from."""
_LAB_MEMORY = Memory(row_tokens=(256,), frame_rows=(256,), least_shape=(8, 3, 32))
"""One shape for nearly all batches, so that few programs are compiled."""
_LAB_SECONDS = 6.0
"""Longer clips are left out of training; 94 % are shorter."""
_ASKED = {
    "emoji": "\nWhat is in this picture?",
    "spoken": "\nWrite down what is said.",
}
"""What is asked about pictures and sounds, by dataset."""
_NUM_GPUS = 32
_OPTIMIZER = OptimizerConfig(peak_lr=4e-4, warmup_steps=100, clip_norm=float(_NUM_GPUS))
_TOKEN_PIXELS = 28 * 28
_LAB_TOKEN_PX = 14
_LAB_LAYERS = 6
"""Of the decoder's 30: one core takes seconds a step."""
_NLI_TRIPLETS, _MULTIMODAL_TRIPLETS = 276_000, 94_000


def text_only(model: str) -> TrainConfig:
    """Variant T: all-NLI triplets, batch 768, rank 64 with alpha 16, two epochs. No tower is
    loaded, and what is trained embeds images and sounds all the same.
    """
    return TrainConfig(
        model=ModelRef(model, trainable=Lora(rank=64, alpha=16, dropout=0.05), towers=()),
        data=DataConfig(sources=(TfdsSource("all_nli"),), batch_size=768),
        optimizer=_OPTIMIZER,
        num_epochs=2,
        mesh=MeshConfig(data=-1),
    )


def multimodal(model: str, triplets: str) -> TrainConfig:
    """Variant M: all-NLI and a quarter of triplets with images, batch 1056, alpha 128.

    The paper's 94,000 multimodal triplets were not released: `triplets` is a JSON Lines file of
    your own, of which as large a share is taken. Images are scaled down to 700 x 700 pixels.
    """
    sources = (
        TfdsSource("all_nli", weight=float(_NLI_TRIPLETS)),
        JsonlSource(triplets, weight=float(_MULTIMODAL_TRIPLETS)),
    )
    return TrainConfig(
        model=ModelRef(model, trainable=Lora(rank=64, alpha=128, dropout=0.05)),
        data=DataConfig(
            sources=sources, batch_size=1056, media=MediaConfig(image_max_pixels=700 * 700)
        ),
        optimizer=_OPTIMIZER,
        num_epochs=2,
        mesh=MeshConfig(data=-1),
    )


def seadoc(pages: str, *, page_tokens: int, captions: str | None = None) -> Stages:
    """Continual generative pre-training of Qwen2.5-VL-3B on pages, then variant T.

    The paper tells neither what trains nor how long: factors of the decoder and the projector at
    one rate, the tower at a tenth of it, one pass over the pages are choices of ours.

    Args:
        pages: JSON Lines file of pages and the text on them.
        page_tokens: pages are scaled down to this many tokens.
        captions: JSON Lines file of pictures and their descriptions, of which as many are taken.
    """
    sources = (JsonlSource(pages),) + ((JsonlSource(captions),) if captions else ())
    read = TrainConfig(
        model=ModelRef(
            "Qwen/Qwen2.5-VL-3B-Instruct",
            trainable=Towers(vision=0.1, projectors=1.0, decoder=Lora(rank=64, alpha=128)),
        ),
        data=DataConfig(
            sources=sources,
            batch_size=64,
            media=MediaConfig(image_max_pixels=page_tokens * _TOKEN_PIXELS),
        ),
        objective=Generative(max_response_tokens=1024),
        optimizer=OptimizerConfig(peak_lr=1e-4, warmup_steps=20),
        num_epochs=1,
        mesh=MeshConfig(data=-1),
        memory=Memory(remat="full"),
    )
    return Stages((Stage("read", read), Stage("refine", text_only(PREVIOUS_STAGE))))


def quickstart() -> Stages:
    """Alignment of the lab's small omni model, then refinement with text only."""
    return Stages(
        (
            Stage("align", lab_alignment(num_steps=200)),
            Stage("refine", lab_refinement(num_layers=8, num_steps=60, seed=42)),
        ),
        samples=lab_samples("align"),
    )


def lab_alignment(*, num_steps: int, seed: int = 42) -> TrainConfig:
    """Eye and projectors learn to speak the decoder's tokens: emoji their names and keywords,
    spoken prompts their transcripts. The ear stays as it is: its features tell words apart."""
    pictures = (
        TfdsSource("emoji", weight=0.5),
        TfdsSource("emoji", response="keywords", weight=0.5),
    )
    return TrainConfig(
        model=ModelRef(
            LAB_MODEL,
            trainable=Towers(vision=1.0, audio=0.0, projectors=1.0),
            dtype="float32",
        ),
        data=DataConfig(
            sources=(TfdsSource("spoken", weight=3.0), *pictures),
            batch_size=24,
            media=replace(
                _LAB_MEDIA,
                audio_max_seconds=_LAB_SECONDS,
                audio_when_longer="refuse",
                on_error="skip",
            ),
        ),
        objective=Alignment(),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=10),
        num_steps=num_steps,
        seed=seed,
        memory=_LAB_MEMORY,
        checkpoint=CheckpointConfig(every_steps=20),
    )


def lab_refinement(
    *, num_layers: int | None, num_steps: int, seed: int, batch_size: int = 32
) -> TrainConfig:
    """Low-rank factors on the decoder learn from WordNet; pictures and sounds are only measured."""
    held_out = tuple(TfdsSource(name, split="test") for name in ("emoji", "spoken"))
    return TrainConfig(
        model=ModelRef(
            PREVIOUS_STAGE,
            trainable=Lora(rank=16, alpha=32, dropout=0.05),
            dtype="float32",
            num_layers=num_layers,
        ),
        data=DataConfig(
            sources=(TfdsSource("wordnet"),),
            batch_size=batch_size,
            media=replace(_LAB_MEDIA, sound_features="tokens"),
        ),
        optimizer=OptimizerConfig(peak_lr=6e-4, warmup_steps=10),
        num_steps=num_steps,
        seed=seed,
        evaluation=Evaluation(TfdsSource("wordnet", split="test"), num_pairs=200, others=held_out),
        checkpoint=CheckpointConfig(every_steps=10),
    )


def lab_full(*, decoder: Lora | None, seed: int = 42) -> Stages:
    """The faithful version: after alignment the towers learn through all layers of the decoder what
    to say of pictures and sounds; then the decoder is refined with text only.

    Args:
        decoder: what of the decoder trains while it speaks (None: nothing).
    """
    align = lab_alignment(num_steps=300, seed=seed)
    speak = replace(
        lab_speaking(decoder=decoder, num_examples=None, batch_size=32, num_steps=200),
        model=ModelRef(
            PREVIOUS_STAGE,
            trainable=Towers(vision=1.0, audio=0.2, projectors=1.0, decoder=decoder),
            dtype="float32",
        ),
        seed=seed,
    )
    refine = lab_refinement(num_layers=None, num_steps=60, seed=seed)
    return Stages(
        (Stage("align", align), Stage("speak", speak), Stage("refine", refine)),
        samples=lab_samples("speak"),
    )


def lab_speaking(
    *, decoder: Lora | None, num_examples: tuple[int, int] | None, batch_size: int, num_steps: int
) -> TrainConfig:
    """The lab's model learns through its decoder what emoji are called and what prompts say.

    Args:
        num_examples: of emoji and of prompts (None: all, of which equally many are taken).
    """
    counts = num_examples or (None, None)
    weights = num_examples or (1, 1)
    sources = tuple(
        TfdsSource(name, prompt=prompt, max_examples=count, weight=float(weight))
        for (name, prompt), count, weight in zip(_ASKED.items(), counts, weights, strict=True)
    )
    return TrainConfig(
        model=ModelRef(
            LAB_MODEL,
            trainable=Towers(vision=1.0, audio=0.2, projectors=1.0, decoder=decoder),
            dtype="float32",
        ),
        data=DataConfig(sources=sources, batch_size=batch_size, media=_LAB_MEDIA),
        objective=Generative(max_response_tokens=64),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=10),
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
        captions: whether a batch has as many captioned pictures as pages.
    """
    pages_per_step = 8
    sources = (TfdsSource("libreoffice/id", prompt="Read the page.", response="text"),)
    if captions:
        sources += (TfdsSource("emoji", prompt="Describe the picture.", response="name"),)
    checkpoint = CheckpointConfig(every_steps=5, keep_last=1)
    memory = Memory(frame_rows=(128, 256, 512))  # 100 to 400 patches of a page
    # A pixel more than the square, or rounding could cost a row of tokens.
    media = MediaConfig(image_max_pixels=page_tokens * _LAB_TOKEN_PX**2 + 1)
    read = TrainConfig(
        model=ModelRef(
            LAB_MODEL,
            trainable=Towers(vision=1.0, audio=0.0, projectors=1.0, decoder=Lora(16, 32)),
            dtype="float32",
            num_layers=_LAB_LAYERS,
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
