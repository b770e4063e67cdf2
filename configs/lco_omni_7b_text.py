"""LCO-Emb, text-only: Qwen/Qwen2.5-Omni-7B on all-NLI triplets, the values of the paper.

Prepare the data once: `python launch/prepare_data.py all_nli`.

With a batch of 1056 a chip peaks at 34.2 GB on v5p:4x4x4 (`--memory.remat none`), at 8.9 GB on
v5e:16x16 and 9.2 GB on v6e:8x8 (`--mesh.tensor 2 --memory.remat full`), and a step takes 100, 86
and 91 ms at least: docs/plan.md.
"""

from lco_jax.config import TrainConfig
from lco_jax.config.recipes import text_only


def get_config() -> TrainConfig:
    return text_only("Qwen/Qwen2.5-Omni-7B")
