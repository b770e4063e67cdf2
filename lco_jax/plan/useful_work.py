"""The work of a step that no layout of it can avoid, as the measure of a plan."""

import math
from dataclasses import dataclass

from lco_jax.config import TrainConfig
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
    """4 N for each token of the decoder, whose weights are frozen or nearly so; for each patch
    twice the vision tower's matrix weights, forward only. Where only pooled tokens count, the last
    layer's queries, output and feed-forward are left out for all others. Attention, the language
    model's head and the gradients of trained matrices are not in it."""

    @property
    def tokens(self) -> int:
        """Of the decoder."""
        return self.text_tokens + self.image_tokens


def useful_work(config: TrainConfig, model: ModelConfig) -> UsefulWork:
    """Of one step on the batch that plans assume."""
    assumed = traits_of(config.objective).assume(config)
    items = config.data.batch_size * assumed.roles
    text_tokens = items * assumed.item_tokens
    pictured = patches = 0
    flops = 0.0
    if model.vision is not None:
        largest = largest_image(config, model)
        num_images = math.ceil(assumed.image_share * items)
        pictured = num_images * largest.num_tokens
        patches = num_images * math.prod(largest.grid[:3])
        flops += 2.0 * model.vision.matrix_weights * patches
    flops += 4.0 * matrix_weights(model.text) * (text_tokens + pictured)
    if not traits_of(config.objective).has_targets:
        flops -= 4.0 * _unpooled_weights(model.text) * (text_tokens + pictured - items)
    return UsefulWork(text_tokens, pictured, patches, flops)


def matrix_weights(text: TextConfig) -> int:
    """N: the decoder's weights that multiply every token."""
    size = text.sizes
    heads = 2 * size["N"] + 2 * size["K"]
    return size["L"] * size["D"] * (heads * size["H"] + 3 * size["F"])


def _unpooled_weights(text: TextConfig) -> int:
    """Of the last layer, those that no other token than the pooled one needs."""
    size = text.sizes
    return size["D"] * (2 * size["N"] * size["H"] + 3 * size["F"])
