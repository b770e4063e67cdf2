"""High-resolution pages beside general captions, then LCO-Emb's text-only refinement.

The last of three arms, and the paper's best: replaying captions keeps images and words together.
Pages as in `seadoc_high`; put captions (the paper took PixmoCaps) into `data/captions.jsonl`, one a
line: `{"prompt": {"image_path": "1.png", "text": "Describe the picture."}, "response": "..."}`.
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
            sources=(JsonlSource("data/seadoc/ocr.jsonl"), JsonlSource("data/captions.jsonl")),
            batch_size=64,
            media=MediaConfig(image_max_pixels=1280 * 28 * 28),
        ),
        objective=Generative(max_response_tokens=1024),
        optimizer=OptimizerConfig(peak_lr=1e-4, warmup_steps=20),
        num_epochs=1,
        mesh=MeshConfig(data=-1),
        # As in `seadoc_high`.
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
