"""SeaDoc in small, first arm: pages of 25 tokens, of which hardly more than titles can be read.

Prepare model and pages once: `python launch/fetch.py --omni` and `python launch/prepare_data.py
libreoffice` (needs the extra `documents`); `python launch/seadoc.py` runs all three arms.
"""

from lco_jax.config import Stages
from lco_jax.lab.recipes import seadoc_small


def get_config() -> Stages:
    return seadoc_small(page_tokens=25)
