"""LCO-Emb, multimodal: Qwen/Qwen2.5-Omni-7B on all-NLI and triplets with images.

Prepare the text once with `python launch/prepare_data.py all_nli`, and put triplets of your own
(the paper's were not released) into `data/multimodal.jsonl`.

With `--memory.remat full` a chip peaks at 28.1 GB on v5p:4x4x4, with `--mesh.tensor 4` besides at
11.6 GB on v5e:16x16 and 30.9 GB on v6e:8x8; a step takes 2.0, 1.2 and 3.5 s at least: docs/plan.md.
"""

from lco_jax.config import TrainConfig
from lco_jax.config.recipes import multimodal


def get_config() -> TrainConfig:
    return multimodal("Qwen/Qwen2.5-Omni-7B", "data/multimodal.jsonl")
