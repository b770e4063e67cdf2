"""From scores to the weights of a softmax, for all who compute attention without a kernel."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_NEVER = 0.5 * float(jnp.finfo(jnp.float32).min)


def mask_bias(mask: Bool[Array, "B S T"]) -> Float[Array, "B S T"]:
    """Zero where the mask is true, and so low elsewhere that no score is left beside it."""
    return jnp.where(mask, 0.0, _NEVER).astype(jnp.float32)


def softmax_parts(
    scores: Float[Array, "*R T"],
) -> tuple[Float[Array, "*R T"], Float[Array, "*R 1"], Float[Array, "*R 1"]]:
    """Weights that are not divided by their sum, the highest score, and that sum.

    The sum is to divide the weighted values, which are few beside the weights.
    """
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    return weights, highest, weights.sum(axis=-1, keepdims=True)
