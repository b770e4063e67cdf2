"""The lab, faithfully: images and audio are learned through all 30 layers of a frozen decoder.

Alignment first puts the features of both towers where tokens are; then towers and projectors learn
by next-token cross-entropy through the decoder what images (emoji, Open Clip Art) are called and
what is said in recordings (prompts, synthetic speech); then the decoder learns from WordNet only.
It needs `prepare_data.py openclipart` and `synthetic_speech`, and 45 minutes on a core.
"""

from lco_jax.config import Stages
from lco_jax.lab.recipes import lab_full


def get_config() -> Stages:
    return lab_full(decoder=None)
