"""The lab, faithfully: pictures and sounds are learned through all 30 layers of a frozen decoder.

Alignment first puts the features of ear and eye where tokens are; then towers and projectors learn
by next-token cross-entropy through the decoder what emoji are called and what prompts say; then the
decoder learns from WordNet only. Minutes on a GPU, hours on two cores.
"""

from lco_jax.config import Stages
from lco_jax.lab import lab_full


def get_config() -> Stages:
    return lab_full(decoder=None)
