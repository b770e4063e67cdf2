"""Generative pre-training on low-resolution pages, then LCO-Emb's text-only refinement.

The first of three arms: the paper finds that reading small pages alone destroys what the model
knows. Pages are scaled down to 256 tokens, about 450 x 450 pixels.

Put exchanges of your own into `data/seadoc/ocr.jsonl` (the paper's were not released), one a line:
`{"prompt": {"image_path": "page.png", "text": "Read the page."}, "response": "..."}`, and prepare
the text once with `python launch/prepare_data.py all_nli`.
"""

from lco_jax.config import Stages
from lco_jax.config.recipes import seadoc


def get_config() -> Stages:
    return seadoc("data/seadoc/ocr.jsonl", page_tokens=256)
