"""SeaDoc in small, second arm: pages of 100 tokens, on which all text can be read. See
`seadoc_small_low`.
"""

from lco_jax.config import Stages
from lco_jax.lab.recipes import seadoc_small


def get_config() -> Stages:
    return seadoc_small(page_tokens=100)
