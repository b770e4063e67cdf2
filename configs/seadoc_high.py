"""Generative pre-training on high-resolution pages, then LCO-Emb's text-only refinement.

The second of three arms: the paper finds that legible pages recover part of what `seadoc_low`
loses. Pages are scaled down to 1,280 tokens, about 1,000 x 1,000 pixels. Data as in `seadoc_low`.

With Qwen/Qwen2.5-VL-7B-Instruct and `--memory.encode-chunks 4` the first stage peaks at 54.1 GB of
a chip of v5p:2x2x2, and a step of 64 pages takes 1.8 s at least: docs/plan.md.
"""

from lco_jax.config import (
    PREVIOUS_STAGE,
    Contrastive,
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


def get_config() -> Stages:
    read = TrainConfig(
        model=ModelRef(
            "Qwen/Qwen2.5-VL-3B-Instruct",
            # The paper does not say what trains: the projector and factors of the decoder at one
            # rate, the tower at a tenth of it are a choice of ours, and so is one pass.
            trainable=Towers(vision=0.1, projectors=1.0, decoder=Lora(rank=64, alpha=128)),
        ),
        data=DataConfig(
            sources=(JsonlSource("data/seadoc/ocr.jsonl"),),
            batch_size=64,
            media=MediaConfig(image_max_pixels=1280 * 28 * 28),
        ),
        objective=Generative(max_response_tokens=1024),
        optimizer=OptimizerConfig(peak_lr=1e-4, warmup_steps=20),
        num_epochs=1,
        mesh=MeshConfig(data=-1),
        # A page of the largest size, its prompt and its response take a row of 2,560 tokens, and
        # its patches one of 5,632, whatever its shape.
        memory=Memory(row_tokens=(2560,), frame_rows=(5632, 16384)),
    )
    refine = TrainConfig(
        model=ModelRef(PREVIOUS_STAGE, trainable=Lora(rank=64, alpha=16, dropout=0.05), towers=()),
        data=DataConfig(sources=(TfdsSource("all_nli"),), batch_size=768),
        objective=Contrastive(temperature=0.03),
        # The official trainer divides the gradient by its 32 GPUs before it clips at 1.0.
        optimizer=OptimizerConfig(peak_lr=4e-4, warmup_steps=100, clip_norm=32.0),
        num_epochs=2,
        mesh=MeshConfig(data=-1),
    )
    return Stages((Stage("read", read), Stage("refine", refine)))
