"""What trains, in words: no setting is called by another's."""

import pytest

from lco_jax.config import Full, Lora, Towers
from lco_jax.report.wording import trainable_in_words


@pytest.mark.parametrize(
    ("trainable", "words"),
    [
        (Lora(rank=64, alpha=16), "LoRA, rank 64, alpha 16"),
        (Lora(4, 2.5, targets=("query",)), "LoRA, rank 4, alpha 2.5 on query"),
        (Full(), "all weights of the decoder"),
        (
            Towers(vision=0.1, audio=0.0, decoder=Lora(16, 32)),
            "vision tower (learning rate x 0.1), projectors "
            "and the decoder by LoRA, rank 16, alpha 32",
        ),
        (
            Towers(vision=1.0, audio=0.2, projectors=0.0),
            "vision tower and audio tower (learning rate x 0.2); the decoder is frozen",
        ),
        (
            Towers(vision=0, audio=0, projectors=1.0, decoder=Full()),
            "projectors and all weights of the decoder",
        ),
        (Towers(0, 0, 0, decoder=Full()), "all weights of the decoder"),
    ],
)
def test_words(trainable, words):
    assert trainable_in_words(trainable) == words
