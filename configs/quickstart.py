"""The paper in miniature: a small omni model is aligned, then refined with text only.

Its parts are real: SmolLM2-135M as decoder, the encoder of Whisper tiny.en as audio tower; the
vision tower starts from nothing. Alignment teaches both the space of the decoder's tokens from
spoken prompts and emoji. Then low-rank factors on the first 8 layers learn from WordNet, which has
neither audio nor images. Held-out texts, recordings and images are measured before and after.
Minutes on two cores.
"""

from lco_jax.config import Stages
from lco_jax.lab.recipes import quickstart


def get_config() -> Stages:
    return quickstart()
