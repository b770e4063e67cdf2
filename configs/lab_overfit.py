"""The lab's model learns 32 emoji and 10 spoken prompts by heart, through all 30 layers.

A loss below 0.1 nats a token says that gradients reach eye and ear.
"""

from lco_jax.config import Lora, TrainConfig
from lco_jax.recipes import lab_speaking


def get_config() -> TrainConfig:
    return lab_speaking(
        decoder=Lora(rank=16, alpha=32, dropout=0.0),
        num_examples=(32, 10),
        batch_size=42,
        num_steps=80,
    )
