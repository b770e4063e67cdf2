"""The gated feed-forward map of decoders and vision towers."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lco_jax.config import Lora
from lco_jax.nn.dropout import TokenDropout
from lco_jax.nn.linear import Linear, apply_all, in_order


class SwiGlu(nnx.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        use_bias: bool = False,
        lora: Lora | None = None,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        def linear(name: str, layout: str) -> Linear:
            branch = lora if lora and name in lora.targets else None
            return Linear(layout, sizes, use_bias=use_bias, lora=branch, dtype=dtype, rngs=rngs)

        self.gate = linear("gate", "D -> F")
        self.up = linear("up", "D -> F")
        self.down = linear("down", "F -> D")

    def __call__(
        self, x: Float[Array, "B S D"], dropout: TokenDropout | None = None
    ) -> Float[Array, "B S D"]:
        lora_x = dropout(x, 2) if dropout else x
        gate, up = apply_all([self.gate, self.up], x, lora_x)
        hidden = jax.nn.silu(gate) * up
        if self.down.lora_a is not None:
            hidden = in_order(hidden)
        lora_hidden = dropout(hidden, 3) if dropout else hidden
        return self.down(hidden, lora_hidden)
