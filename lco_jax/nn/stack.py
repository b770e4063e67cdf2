"""A stack of equal layers: one set of stacked weights, one scan."""

import itertools
from collections.abc import Callable, Mapping, Sequence
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

    # Inside a scan the compiler cannot merge the recomputation with the forward pass.
    body = _recomputed(body, remat)
    return jax.lax.scan(body, carry, (layers, jax.numpy.arange(num_layers)))


def scan_kinds(
    layer_fns: Mapping[str, Callable[[nnx.Module, Any], Any]],
    layers: nnx.Module,
    carry: Any,
    *,
    kinds: Sequence[str],
    remat: Remat = "none",
) -> Any:
    """Run `layer_fns[kind](layer, carry) -> carry` over all layers, whose weights are alike and
    whose `kinds` are known beforehand: no layer chooses while it runs.

    Kinds that come back in a period are compiled once, and so are neighbours of one kind within it.
    """
    period = _period(kinds)
    runs = [(kind, len(list(same))) for kind, same in itertools.groupby(kinds[:period])]

    def run_period(carry: Any, layers: nnx.Module) -> tuple[Any, None]:
        first = 0
        for kind, count in runs:
            own = jax.tree.map(lambda x: x[first : first + count], layers)  # noqa: B023

            def body(carry: Any, layer: nnx.Module, kind: str = kind) -> tuple[Any, None]:
                return layer_fns[kind](layer, carry), None

            carry, _ = jax.lax.scan(_recomputed(body, remat), carry, own)
            first += count
        return carry, None

    if period == len(kinds):
        return run_period(carry, layers)[0]
    by_period = jax.tree.map(lambda x: _split_first(x, period), layers)
    return jax.lax.scan(run_period, carry, by_period)[0]


def _recomputed(body: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    if remat == "none":
        return body
    kept = jax.checkpoint_policies.save_only_these_names(_KEPT)
    return jax.checkpoint(body, policy=kept if remat == "dots" else None, prevent_cse=False)


def _period(kinds: Sequence[str]) -> int:
    """After how many layers their kinds begin anew."""
    return next(
        size
        for size in range(1, len(kinds) + 1)
        if len(kinds) % size == 0 and all(kinds[i] == kinds[i % size] for i in range(len(kinds)))
    )


def _split_first(x: Array, size: int) -> Array:
    """`x` with its first dimension, which no mesh axis divides, in parts of `size`."""
    spec = jax.P(None, *jax.typeof(x).sharding.spec)
    return jax.lax.reshape(x, (len(x) // size, size, *x.shape[1:]), out_sharding=spec)
