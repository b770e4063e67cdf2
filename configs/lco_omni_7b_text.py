"""LCO-Emb, text-only: Qwen/Qwen2.5-Omni-7B on all-NLI triplets, the values of the paper.

Prepare the data once: `python launch/prepare_data.py all_nli`.

With a batch of 1056 a chip peaks at 33.8 GB on v5p:4x4x4 (`--memory.remat none`), at 9.7 GB on
v5e:16x16 (`--mesh.tensor 2`) and at 21.1 GB on v6e:8x8, and a step takes 97, 62 and 62 ms at least:
docs/plan.md.
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
            "Qwen/Qwen2.5-Omni-7B",
            trainable=Lora(rank=64, alpha=16, dropout=0.05),
            towers=(),  # none is loaded; what is trained embeds images and audio all the same
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
