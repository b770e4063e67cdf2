"""SeaDoc in small, third arm: pages of 100 tokens beside captioned images. See
`seadoc_small_low`.
"""

from lco_jax.config import Stages
from lco_jax.lab.recipes import seadoc_small


def get_config() -> Stages:
    return seadoc_small(page_tokens=100, captions=True)
