"""LCO-Emb, text-only: Qwen/Qwen2.5-VL-72B-Instruct on all-NLI,
with the values of the paper for smaller models.

The weights lie on 4 chips each (`mesh.tensor`), and layers are computed again for their gradients.
Prepare the data once: `python launch/prepare_data.py all_nli`.

With a batch of 1056 a chip of v5p:4x4x4 peaks at 53.5 GB, and a step takes 1.4 s at least:
docs/plan.md.
"""

import dataclasses

from lco_jax.config import Memory, MeshConfig, TrainConfig
from lco_jax.config.recipes import text_only


def get_config() -> TrainConfig:
    return dataclasses.replace(
        text_only("Qwen/Qwen2.5-VL-72B-Instruct"),
        mesh=MeshConfig(data=-1, tensor=4),
        memory=Memory(remat="full"),
    )
