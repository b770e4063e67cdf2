"""Generative pre-training on high-resolution pages, then LCO-Emb's text-only refinement.

The second of three arms: the paper finds that legible pages recover part of what `seadoc_low`
loses. Pages are scaled down to 1,280 tokens, about 1,000 x 1,000 pixels. Data as in `seadoc_low`.
"""

from lco_jax.config import Stages
from lco_jax.config.recipes import seadoc


def get_config() -> Stages:
    return seadoc("data/seadoc/ocr.jsonl", page_tokens=1280)
