"""LCO-Emb, multimodal: Qwen/Qwen2.5-VL-7B-Instruct on all-NLI and triplets with images.

Prepare the text once with `python launch/prepare_data.py all_nli`, and put triplets of your own
(the paper's were not released) into `data/multimodal.jsonl`.

With a batch of 1056 and `--memory.remat full` a chip peaks at 26.8 GB on v5p:4x4x4, and a step
takes 2.0 s at least: docs/plan.md.
"""

from lco_jax.config import TrainConfig
from lco_jax.config.recipes import multimodal


def get_config() -> TrainConfig:
    return multimodal("Qwen/Qwen2.5-VL-7B-Instruct", "data/multimodal.jsonl")
