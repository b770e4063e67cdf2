"""High-resolution pages beside general captions, then LCO-Emb's text-only refinement.

The last of three arms, and the paper's best: replaying captions keeps pictures and words together.
Pages as in `seadoc_high`; put captions (the paper took PixmoCaps) into `data/captions.jsonl`, one a
line: `{"prompt": {"image_path": "1.png", "text": "Describe the picture."}, "response": "..."}`.
"""

from lco_jax.config import Stages
from lco_jax.config.recipes import seadoc


def get_config() -> Stages:
    return seadoc("data/seadoc/ocr.jsonl", page_tokens=1280, captions="data/captions.jsonl")
