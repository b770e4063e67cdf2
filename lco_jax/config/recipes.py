"""The recipes of the paper, by checkpoint; the files in `configs/` name them.

Source: LCO-Emb §4; released scripts for what the paper leaves open (warm-up, dropout, clipping,
pixels). The official trainer divides the gradient by its 32 GPUs before it clips at 1.0, which is
32 on the true gradient.
"""

from lco_jax.config import (
    PREVIOUS_STAGE,
    DataConfig,
    Generative,
    JsonlSource,
    Lora,
    MediaConfig,
    Memory,
    MeshConfig,
    ModelRef,
    OptimizerConfig,
    Stage,
    Stages,
    TfdsSource,
    Towers,
    TrainConfig,
)

_NUM_GPUS = 32
_OPTIMIZER = OptimizerConfig(peak_lr=4e-4, warmup_steps=100, clip_norm=float(_NUM_GPUS))
_TOKEN_PIXELS = 28 * 28
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
