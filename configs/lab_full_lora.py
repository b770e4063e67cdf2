"""The second arm of `lab_full`: low-rank factors of the decoder learn to speak as well."""

from lco_jax.config import Lora, Stages
from lco_jax.lab.recipes import lab_full


def get_config() -> Stages:
    return lab_full(decoder=Lora(rank=16, alpha=32, dropout=0.05))
