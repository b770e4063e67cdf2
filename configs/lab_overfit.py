"""The lab's model learns 32 emoji and 10 spoken prompts by heart, through all 30 layers.

A loss below 0.1 nats a token says that gradients reach both towers. Eight minutes on two cores.
"""

from lco_jax.config import TrainConfig
from lco_jax.lab.recipes import lab_overfit


def get_config() -> TrainConfig:
    return lab_overfit()
