"""Normalisation, accumulated in float32."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lco_jax.runtime.axes import weight_spec


class RMSNorm(nnx.Module):
    """x / rms(x) · scale over the dimension `over`, cast to the input dtype before the scale.

    Source: transformers Qwen2RMSNorm; of the heads of queries and keys, Qwen3Attention.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        eps: float,
        dtype: jnp.dtype,
        over: Literal["D", "H"] = "D",
    ):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(sizes[over], dtype, out_sharding=weight_spec(over)))

    def __call__(self, x: Float[Array, "*B O"]) -> Float[Array, "*B O"]:
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = (wide * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype)
        # Moves its values: the scale is sharded like any weight, these activations' are whole.
        return normed * jax.reshard(self.scale[...], jax.P(None)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean(x)) / std(x) · scale + bias over the dimensions `over`, cast to the input dtype at
    the end.

    Source: torch LayerNorm.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        eps: float,
        dtype: jnp.dtype,
        over: Literal["D", "U D"] = "D",
    ):
        self.eps = eps
        shape, spec = [sizes[letter] for letter in over.split()], weight_spec(over)
        self.scale = nnx.Param(jnp.ones(shape, dtype, out_sharding=spec))
        self.bias = nnx.Param(jnp.zeros(shape, dtype, out_sharding=spec))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        dimensions = self.scale[...].ndim
        axes = tuple(range(-dimensions, 0))
        wide = x.astype(jnp.float32)
        centered = wide - jnp.mean(wide, axis=axes, keepdims=True)
        variance = jnp.mean(jnp.square(centered), axis=axes, keepdims=True)
        # Moves the values of each, as in `RMSNorm`.
        scale, bias = (
            jax.reshard(part[...], jax.P(*[None] * dimensions)).astype(jnp.float32)
            for part in (self.scale, self.bias)
        )
        return (centered * jax.lax.rsqrt(variance + self.eps) * scale + bias).astype(x.dtype)


def l2_normalize(x: Float[Array, "*B E"], eps: float = 1e-12) -> Float[Array, "*B E"]:
    """Unit vectors in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), eps**2))
