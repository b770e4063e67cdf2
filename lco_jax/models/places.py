"""What stands where in packed rows: features of media, and the tokens of each item."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lco_jax.runtime.axes import act_spec

Media = tuple[Float[Array, "G X E"], Int[Array, "B S"]]
"""The features of each shard's media, and for each token which of them takes its place (-1:
none). Behind the D values that do so, a feature may have D more for each of the first layers."""


def place_features(
    embeddings: Float[Array, "B S D"], features: Float[Array, "G X D"], slots: Int[Array, "B S"]
) -> Float[Array, "B S D"]:
    """`embeddings` with the features of media in the place of the tokens that stand for them."""

    def place(embeddings: Array, features: Array, slots: Array) -> Array:
        found = features[0][jnp.maximum(slots, 0)].astype(embeddings.dtype)
        return jnp.where(slots[..., None] >= 0, found, embeddings)

    return _in_shards(place, embeddings, features[..., : embeddings.shape[-1]], slots)


class DeepFeatures:
    """What is added to the states of the tokens of media after the first layers.

    Args:
        media: whose features have a part for each of these layers behind their first `width`
            values (None: there are none, and nothing is added).
    """

    def __init__(self, media: Media | None, width: int):
        self._width, self._num_layers = width, 0
        if media is not None:
            features, self._slots = media
            self._features = features[..., width:]
            self._num_layers = features.shape[-1] // width - 1

    def add(self, x: Float[Array, "B S D"], index: int | Int[Array, ""]) -> Float[Array, "B S D"]:
        """The states after the layer of that number, the first being 0."""
        if not self._num_layers:
            return x

        def place(x: Array, features: Array, slots: Array) -> Array:
            found = features[0][jnp.maximum(slots, 0)].astype(x.dtype)
            return x + jnp.where(slots[..., None] >= 0, found, 0)

        def added(x: Array) -> Array:
            first = jnp.minimum(index, self._num_layers - 1) * self._width
            own = jax.lax.dynamic_slice_in_dim(self._features, first, self._width, axis=2)
            return _in_shards(place, x, own, self._slots)

        return jax.lax.cond(index < self._num_layers, added, lambda x: x, x)

    def add_pooled(
        self,
        picked: Float[Array, "J I D"],
        x: Float[Array, "B S D"],
        index: int,
        pool: Callable[[Array], Array],
    ) -> Float[Array, "J I D"]:
        """The same of the tokens that `pool` picks out of rows like `x`."""
        if index >= self._num_layers:  # as in any decoder but those of few layers
            return picked
        return picked + pool(self.add(jnp.zeros_like(x), index))


def _in_shards(
    place: Callable[[Array, Array, Array], Array], x: Array, features: Array, slots: Array
) -> Float[Array, "B S D"]:
    # Features never leave their shard: `slots` counts within it.
    specs = (act_spec("B S D"), act_spec("G X D"), act_spec("B S"))
    return jax.shard_map(place, in_specs=specs, out_specs=specs[0])(x, features, slots)


def places_in_item(segments: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """How many tokens of the same item precede each token."""
    order = jnp.broadcast_to(jnp.arange(segments.shape[1]), segments.shape)
    begins = jnp.concatenate(
        [jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1
    )
    return order - jax.lax.cummax(jnp.where(begins, order, 0), axis=1)
