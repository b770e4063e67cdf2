"""The paper in miniature: a small omni model is aligned, then refined with text only.

Its parts are real: SmolLM2-135M as decoder, the encoder of Whisper tiny.en as audio tower, and a
randomly initialised vision tower. Alignment trains the vision tower and the projectors on spoken
prompts and emoji, so that features match the embeddings of the tokens that name them. Then low-rank
factors on all layers of the decoder learn from texts alone: WordNet, and the transcripts
and names of the training media as an imperfect reader would pass them on. Held-out texts,
recordings and images are measured before and after. Minutes on two cores.
"""

from lco_jax.config import Stages
from lco_jax.lab.recipes import quickstart


def get_config() -> Stages:
    return quickstart()
