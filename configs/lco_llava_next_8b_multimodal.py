"""LCO-Emb, multimodal: llava-hf/llama3-llava-next-8b-hf on all-NLI and triplets with images.

Prepare the text once with `python launch/prepare_data.py all_nli`, and put triplets of your own
(the paper's were not released) into `data/multimodal.jsonl`.
"""

from lco_jax.config import (
    Contrastive,
    DataConfig,
    JsonlSource,
    Lora,
    Memory,
    MeshConfig,
    ModelRef,
    OptimizerConfig,
    TfdsSource,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelRef(
            "llava-hf/llama3-llava-next-8b-hf", trainable=Lora(rank=64, alpha=128, dropout=0.05)
        ),
        data=DataConfig(
            sources=(
                TfdsSource("all_nli", weight=276_000.0),
                # The paper's 94,000 triplets were not released: as large a share is taken of yours.
                JsonlSource("data/multimodal.jsonl", weight=94_000.0),
            ),
            batch_size=1056,
        ),
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
        # An image takes up to 2,928 tokens: rows of 6,144 hold two. Longer items take longer rows.
        memory=Memory(row_tokens=(6144, 16384)),
    )
