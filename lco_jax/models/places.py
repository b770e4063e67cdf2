"""What stands where in packed rows: features of media, and the tokens of each item."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lco_jax.runtime.axes import act_spec

Media = tuple[Float[Array, "G X D"], Int[Array, "B S"]]
"""The features of each shard's media, and for each token which of them takes its place (-1:
none)."""


def place_features(
    embeddings: Float[Array, "B S D"], features: Float[Array, "G X D"], slots: Int[Array, "B S"]
) -> Float[Array, "B S D"]:
    """`embeddings` with the features of media in the place of the tokens that stand for them."""

    def place(embeddings: Array, features: Array, slots: Array) -> Array:
        found = features[0][jnp.maximum(slots, 0)].astype(embeddings.dtype)
        return jnp.where(slots[..., None] >= 0, found, embeddings)

    # Features never leave their shard: `slots` counts within it.
    specs = (act_spec("B S D"), act_spec("G X D"), act_spec("B S"))
    return jax.shard_map(place, in_specs=specs, out_specs=specs[0])(embeddings, features, slots)


def places_in_item(segments: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """How many tokens of the same item precede each token."""
    order = jnp.broadcast_to(jnp.arange(segments.shape[1]), segments.shape)
    begins = jnp.concatenate(
        [jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1
    )
    return order - jax.lax.cummax(jnp.where(begins, order, 0), axis=1)
