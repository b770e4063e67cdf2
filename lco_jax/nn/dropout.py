"""Dropout whose mask belongs to a token, not to its place in a packed row."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32


class TokenDropout:
    """Zeroes inputs of the low-rank branches.

    The mask of a token is a function of the step's key, the layer, the item and the position in
    the item. So it is the same however items are packed, chunked or sharded over devices, and a
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

    def of(self, pool: Callable[[Array], Array]) -> "TokenDropout":
        """The same for the tokens that `pool` picks."""
        return TokenDropout(self.key, self.rate, *map(pool, self.tokens))

    def __call__(self, x: Float[Array, "B S *D"], place: int) -> Float[Array, "B S *D"]:
        """Drop entries of `x`; `place` tells the inputs within a layer apart."""
        if self.rate == 0:
            return x
        items, positions = self.tokens
        spec = jax.typeof(x).sharding.spec
        seeds = jax.random.bits(jax.random.fold_in(self.key, place), 3, jnp.uint32)
        words = _mix(
            _mix(items.astype(jnp.uint32) ^ seeds[0]) ^ seeds[1] ^ positions.astype(jnp.uint32)
        )
        columns = jnp.arange(math.prod(x.shape[2:]), dtype=jnp.uint32)
        columns = jax.lax.reshape(
            _mix(columns ^ seeds[2]), x.shape[2:], out_sharding=jax.P(*spec[2:])
        )
        words = jnp.expand_dims(words, range(2, x.ndim))
        keep = _mix(words ^ columns) >= jnp.uint32(round(self.rate * 2**32))
        return x * (keep / (1 - self.rate)).astype(x.dtype)


def _mix(x: UInt32[Array, "*x"]) -> UInt32[Array, "*x"]:
    """A hash in which every bit of `x` turns every bit of the result in half of all cases.

    Threefry, whose strength dropout does not need, takes as long as a matrix product of the layer.

    Source: the finalizer of MurmurHash3.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
