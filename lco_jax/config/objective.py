"""What a stage minimises."""

from dataclasses import dataclass

from lco_jax.config.checks import require


@dataclass(frozen=True)
class Contrastive:
    """One-way InfoNCE over the positives and negatives of the whole global batch.

    Source: LCO-Emb released trainers (temperature 0.03, constant).
    """

    temperature: float = 0.03
    symmetric: bool = False
    """Also classify each positive's anchor among all anchors."""
    mask_duplicates: bool = False
    """Drop candidates whose content equals the anchor's own or its positive's; images are equal if
    their files are."""
    false_negative_margin: float | None = None
    """Drop candidates whose cosine exceeds the positive's by more than this margin."""
    matryoshka_dims: tuple[int, ...] = ()
    """Additional widths at which the loss is taken; the mean over all widths is minimised."""

    def __post_init__(self):
        require(self.temperature > 0, f"temperature={self.temperature} must be positive")


@dataclass(frozen=True)
class Generative:
    """Next-token cross-entropy of the responses, divided by their number of tokens.

    Source: LCO-Emb §5 (continual generative pre-training).
    """

    max_response_tokens: int = 512
    """Longer responses are cut, and then have no end."""

    def __post_init__(self):
        require(
            self.max_response_tokens > 0,
            f"max_response_tokens={self.max_response_tokens} must be at least 1",
        )


@dataclass(frozen=True)
class Alignment:
    """Trains towers and projectors so that the features of a medium match the embeddings of the
    tokens that name it; the decoder is frozen and not run.

    The features of a recording follow the tokens of its transcript in order, each for as long as it
    is heard (CTC without a blank); those of an image match the tokens of its name in any order.
    Both texts are in lower case, without punctuation.
    """

    pull: float = 1.0
    """Weight of the squared distance between a feature and the embedding of its token, in units of
    the mean squared length of an embedding."""
    max_response_tokens: int = 64
    """Longer responses are cut."""

    def __post_init__(self):
        require(self.pull >= 0, f"pull={self.pull} must not be negative")
        require(
            self.max_response_tokens > 0,
            f"max_response_tokens={self.max_response_tokens} must be at least 1",
        )


Objective = Contrastive | Generative | Alignment
