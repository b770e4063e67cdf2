"""LCO-Emb, text-only: Qwen/Qwen2.5-VL-3B-Instruct on all-NLI triplets, the values of the paper.

Prepare the data once: `python launch/prepare_data.py all_nli`.
"""

from lco_jax.config import TrainConfig
from lco_jax.recipes import text_only


def get_config() -> TrainConfig:
    return text_only("Qwen/Qwen2.5-VL-3B-Instruct")
