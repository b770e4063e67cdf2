"""LCO-Emb, text-only: Qwen/Qwen2.5-Omni-3B on all-NLI triplets, the values of the paper.

Prepare the data once: `python launch/prepare_data.py all_nli`.

With a batch of 1056 and `--memory.remat full` a chip peaks at 8.1 GB on v5e:16x16, and a step
takes 50 ms at least: docs/plan.md.
"""

from lco_jax.config import TrainConfig
from lco_jax.config.recipes import text_only


def get_config() -> TrainConfig:
    return text_only("Qwen/Qwen2.5-Omni-3B")
