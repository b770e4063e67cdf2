"""A stack of equal layers: one set of stacked weights, one scan."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

Remat = Literal["none", "full", "dots"]

_KEPT = "kept"


def keep(x: Float[Array, "*x"]) -> Float[Array, "*x"]:
    """`x`, marked as the result of matrix products, which `remat="dots"` does not compute twice.

    All else is element-wise, and computing it again takes less time than writing and reading it.
    """
    return checkpoint_name(x, _KEPT)


def stacked(make: Callable[[nnx.Rngs], nnx.Module], num_layers: int, rngs: nnx.Rngs) -> nnx.Module:
    """A module like `make(rngs)` whose weights carry a leading layer dimension."""
    keys = jax.random.split(rngs.params(), num_layers)
    return jax.vmap(lambda key: make(nnx.Rngs(params=key)))(keys)


def scan_layers(
    layer_fn: Callable[[nnx.Module, Int[Array, ""], Any], tuple[Any, Any]],
    layers: nnx.Module,
    carry: Any,
    *,
    num_layers: int,
    remat: Remat = "none",
) -> tuple[Any, Any]:
    """Run `layer_fn(layer, index, carry) -> (carry, tap)` over all layers; taps come stacked."""

    def body(carry: Any, xs: tuple[nnx.Module, Array]) -> tuple[Any, Any]:
        return layer_fn(*xs, carry)

    if remat != "none":
        kept = jax.checkpoint_policies.save_only_these_names(_KEPT)
        policy = kept if remat == "dots" else None
        # Inside a scan the compiler cannot merge the recomputation with the forward pass.
        body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    return jax.lax.scan(body, carry, (layers, jax.numpy.arange(num_layers)))
