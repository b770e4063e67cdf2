"""LCO-Emb, text-only: Qwen/Qwen2.5-VL-7B-Instruct on all-NLI triplets, the values of the paper.

Batch 768, LoRA 64 with alpha 16, cosine decay from 4e-4, two epochs. Clipping at 1.0 in the
official trainer acts on the gradient divided by its 32 GPUs: 32 on the true gradient.

Prepare the data once: `python launch/prepare_data.py all_nli`.
Source: LCO-Emb §4; released scripts for what the paper leaves open (warm-up, dropout, clipping).
"""

from lco_jax.config import (
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
            "Qwen/Qwen2.5-VL-7B-Instruct", trainable=Lora(rank=64, alpha=16, dropout=0.05)
        ),
        data=DataConfig(sources=(TfdsSource("all_nli"),), batch_size=768),
        optimizer=OptimizerConfig(peak_lr=4e-4, warmup_steps=100, clip_norm=32.0),
        num_epochs=2,
        mesh=MeshConfig(data=-1),
    )
