"""LCO-Emb, text-only: Qwen/Qwen3-VL-8B-Instruct on all-NLI triplets.

Prepare the data once: `python launch/prepare_data.py all_nli`.
"""

from lco_jax.config import (
    Contrastive,
    DataConfig,
    Lora,
    MeshConfig,
    ModelRef,
    OptimizerConfig,
    TfdsSource,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelRef(
            "Qwen/Qwen3-VL-8B-Instruct",
            trainable=Lora(rank=64, alpha=16, dropout=0.05),
            towers=(),  # none is loaded; what is trained embeds images all the same
        ),
        data=DataConfig(sources=(TfdsSource("all_nli"),), batch_size=768),
        objective=Contrastive(temperature=0.03),
        optimizer=OptimizerConfig(
            peak_lr=4e-4,
            schedule="cosine",
            warmup_steps=100,
            # The official trainer divides the gradient by its 32 GPUs before it clips at 1.0.
            clip_norm=32.0,
        ),
        num_epochs=2,
        mesh=MeshConfig(data=-1),
    )
