"""LCO-Emb, text-only: Qwen/Qwen2.5-Omni-7B on all-NLI triplets, the values of the paper.

Prepare the data once: `python launch/prepare_data.py all_nli`.

With a batch of 1056 a chip of v5p:4x4x4 holds 14.8 GB of arguments and 20.3 GB of temporaries
(`--memory.remat none`), one of v5e:16x16 7.5 GB and 1.8 GB (`--mesh.tensor 2 --memory.remat full`):
docs/plan.md.
"""

from lco_jax.config import TrainConfig
from lco_jax.recipes import text_only


def get_config() -> TrainConfig:
    return text_only("Qwen/Qwen2.5-Omni-7B")
