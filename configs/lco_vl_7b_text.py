"""LCO-Emb, text-only: Qwen/Qwen2.5-VL-7B-Instruct on all-NLI triplets, the values of the paper.

Prepare the data once: `python launch/prepare_data.py all_nli`.

With a batch of 1056 and `--memory.remat none` a chip peaks at 34.2 GB on v5p:4x4x4, and a step
takes 100 ms at least: docs/plan.md.
"""

from lco_jax.config import TrainConfig
from lco_jax.config.recipes import text_only


def get_config() -> TrainConfig:
    return text_only("Qwen/Qwen2.5-VL-7B-Instruct")
