"""LCO-Emb, multimodal: Qwen/Qwen2.5-Omni-7B on all-NLI and triplets with images.

Prepare the text once with `python launch/prepare_data.py all_nli`, and put triplets of your own
(the paper's were not released) into `data/multimodal.jsonl`.

On v5p:4x4x4 with `--memory.remat full` a chip holds 17.8 GB of arguments and 15.7 GB of temporaries
(docs/plan.md).
"""

from lco_jax.config import TrainConfig
from lco_jax.recipes import multimodal


def get_config() -> TrainConfig:
    return multimodal("Qwen/Qwen2.5-Omni-7B", "data/multimodal.jsonl")
