"""A mask as something to add to scores."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_NEVER = 0.5 * float(jnp.finfo(jnp.float32).min)


def mask_bias(mask: Bool[Array, "B S T"]) -> Float[Array, "B S T"]:
    """Zero where the mask is true, and so low elsewhere that no score is left beside it."""
    return jnp.where(mask, 0.0, _NEVER).astype(jnp.float32)
