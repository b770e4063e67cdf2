"""The lab as in the paper: images and audio are learned through all 30 layers of a frozen decoder.

Alignment first trains the features of both towers to match the embeddings of the tokens that name
them. Then towers and projectors learn, by next-token cross-entropy through the decoder, to name
images (emoji, Open Clip Art) and to transcribe recordings (prompts, synthetic speech). Then the
decoder is refined on WordNet texts only.
It needs `prepare_data.py openclipart` and `synthetic_speech`, and 45 minutes on a core.
"""

from lco_jax.config import Stages
from lco_jax.lab.recipes import lab_full


def get_config() -> Stages:
    return lab_full(decoder=None)
