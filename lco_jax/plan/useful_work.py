"""The work of a step that no layout of it can avoid, as the measure of a plan."""

import math
from dataclasses import dataclass
from typing import Literal

from lco_jax.config import Full, Towers, Trainable, TrainConfig
from lco_jax.models.config import ModelConfig, TextConfig
from lco_jax.objectives.traits import traits_of
from lco_jax.plan.assumed_batch import largest_image


@dataclass(frozen=True)
class UsefulWork:
    """What the assumed batch of a step consists of, padding left out."""

    text_tokens: int
    image_tokens: int
    """Of the decoder's rows, too."""
    patches: int
    flops: float
    """Of `needed_flops`."""

    @property
    def tokens(self) -> int:
        """Of the decoder."""
        return self.text_tokens + self.image_tokens


def useful_work(config: TrainConfig, model: ModelConfig) -> UsefulWork:
    """Of one step on the batch that plans assume."""
    traits = traits_of(config.objective)
    assumed = traits.assume(config)
    items = config.data.batch_size * assumed.roles
    text_tokens = items * assumed.item_tokens
    pictured = patches = targets = 0
    if model.vision is not None:
        largest = largest_image(config, model)
        num_images = math.ceil(assumed.image_share * items)
        pictured = num_images * largest.num_tokens
        patches = num_images * math.prod(largest.grid[:3])
    if traits.needs_head:
        targets = items * config.objective.max_response_tokens
    tokens = 0 if traits.has_vocabulary else text_tokens + pictured  # the decoder does not run
    flops = needed_flops(
        config.model.trainable,
        model,
        tokens=tokens,
        last_tokens=tokens if traits.has_targets else items,
        patches=patches,
        targets=targets,
    )
    return UsefulWork(text_tokens, pictured, patches, flops)


def needed_flops(
    trainable: Trainable,
    model: ModelConfig,
    *,
    tokens: int,
    last_tokens: int,
    patches: int,
    targets: int,
) -> float:
    """Of products with the model's matrices: two a weight forward, two for the gradient of what it
    reads where something before it trains, and two for its own where it trains.

    Attention, low-rank factors, the audio tower and what is within a projector that trains without
    its tower are not in it.

    Args:
        tokens: of the decoder's rows.
        last_tokens: of those, the ones whose states are wanted; the last layer's queries, output
            and feed-forward are of use to no other.
        patches: of the vision tower.
        targets: tokens that the language model's head is asked for.
    """
    text = model.text
    per_weight = 6.0 if _trains(trainable, "decoder") else 4.0
    products = matrix_weights(text) * tokens - _last_weights(text) * (tokens - last_tokens)
    products += text.vocab_size * text.hidden_size * targets
    return per_weight * products + (patches * _flops_of_patch(trainable, model) if patches else 0)


def matrix_weights(text: TextConfig) -> int:
    """N: the decoder's weights that multiply every token."""
    size = text.sizes
    heads = 2 * size["N"] + 2 * size["K"]
    return size["L"] * size["D"] * (heads * size["H"] + 3 * size["F"])


def _last_weights(text: TextConfig) -> int:
    """Of the last layer, those of queries, output and feed-forward."""
    size = text.sizes
    return size["D"] * (2 * size["N"] * size["H"] + 3 * size["F"])


def _flops_of_patch(trainable: Trainable, model: ModelConfig) -> float:
    """Of the vision tower and its projector."""
    weights, projector = model.vision.matrix_weights, model.vision.projector_weights
    products = weights
    if _trains(trainable, "vision"):
        products += (weights - model.vision.embed_weights) + (weights - projector)
    if _trains(trainable, "projectors"):
        products += projector
    return 2.0 * products


def _trains(trainable: Trainable, part: Literal["vision", "projectors", "decoder"]) -> bool:
    """Whether the matrices of a part train, not low-rank factors alone."""
    if isinstance(trainable, Towers) and part != "decoder":
        return getattr(trainable, part) > 0
    decoder = trainable.decoder if isinstance(trainable, Towers) else trainable
    return part == "decoder" and isinstance(decoder, Full)
