"""Dropout whose mask belongs to a token, not to its place in a packed row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

_BITS = 16


class TokenDropout:
    """Zeroes inputs of the low-rank branches.

    The mask of a token is a function of the step's key, the layer, the item and the position in
    the item. So it is the same however items are packed, chunked or spread over devices, and a
    recomputed forward pass (remat, gradient cache) draws it again.
    """

    def __init__(
        self,
        key: PRNGKeyArray,
        rate: float,
        items: Int[Array, "B S"],
        positions: Int[Array, "B S"],
    ):
        self.key, self.rate = key, rate
        self.tokens = (items, positions)

    def in_layer(self, layer: Int[Array, ""]) -> "TokenDropout":
        """The same dropout with other masks."""
        return TokenDropout(jax.random.fold_in(self.key, layer), self.rate, *self.tokens)

    def __call__(self, x: Float[Array, "B S *D"], place: int) -> Float[Array, "B S *D"]:
        """Drop entries of `x`; `place` tells the inputs within a layer apart."""
        if self.rate == 0:
            return x
        key = jax.random.fold_in(self.key, place)
        items, positions = self.tokens

        def bits(item: Int[Array, ""], position: Int[Array, ""]) -> UInt32[Array, "*D"]:
            token_key = jax.random.fold_in(jax.random.fold_in(key, item), position)
            return jax.random.bits(token_key, x.shape[2:], jnp.uint16)

        draws = jax.vmap(jax.vmap(bits))(items, positions)
        keep = draws >= round(self.rate * 2**_BITS)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)
