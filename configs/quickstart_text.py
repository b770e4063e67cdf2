"""Text-only contrastive LoRA of SmolLM2-135M on WordNet: minutes on two CPU cores.

Real weights and real text. Gloss retrieval (an example sentence finds the gloss of its word) is
measured on held-out words before and after.
"""

from pathlib import Path

from lco_jax.config import (
    DataConfig,
    Evaluation,
    Lora,
    ModelRef,
    OptimizerConfig,
    TfdsSource,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelRef(
            str(Path("~/.cache/lco_jax/smollm2-135m").expanduser()),
            trainable=Lora(rank=16, alpha=32, dropout=0.05),
            dtype="float32",
            num_layers=8,
        ),
        data=DataConfig(sources=(TfdsSource("wordnet"),), batch_size=32),
        optimizer=OptimizerConfig(peak_lr=6e-4, warmup_steps=10),
        num_steps=60,
        evaluation=Evaluation(TfdsSource("wordnet", split="test"), num_pairs=200),
    )
