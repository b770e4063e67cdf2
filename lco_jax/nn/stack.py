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


def stacked(
    make: Callable[[nnx.Rngs | None], nnx.Module], num_layers: int, rngs: nnx.Rngs | None
) -> nnx.Module:
    """A module like `make(rngs)` whose weights carry a leading layer dimension."""
    if rngs is None:
        return jax.vmap(lambda: make(None), axis_size=num_layers)()
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
    """Run `layer_fn(layer, index, carry) -> (carry, tap)` over the first `num_layers` layers; taps
    come stacked. Where these are not all, only low-rank factors may be differentiated.
    """
    indices = jax.numpy.arange(num_layers)
    if num_layers == len(jax.tree.leaves(layers)[0]):
        plain = _recomputed(lambda carry, xs: layer_fn(*xs, carry), remat)
        return jax.lax.scan(plain, carry, (layers, indices))

    # A slice of the weights would be a copy of nearly all of them, so each layer takes its own out
    # of the whole stack. Factors are small, and their gradients should come stacked.
    graph, factors, rest = nnx.split(layers, nnx.LoRAParam, ...)
    factors = jax.tree.map(lambda x: x[:num_layers], factors)

    def body(carry: Any, xs: tuple[nnx.State, Array]) -> tuple[Any, Any]:
        factors, index = xs
        own = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, 0, False), rest)
        return layer_fn(nnx.merge(graph, factors, own), index, carry)

    return jax.lax.scan(_recomputed(body, remat, picks=True), carry, (factors, indices))


def last_layer(layers: nnx.Module) -> nnx.Module:
    """The last layer of a stack."""
    return jax.tree.map(lambda x: x[-1], layers)


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


def _recomputed(
    body: Callable[..., Any], remat: Remat, *, picks: bool = False
) -> Callable[..., Any]:
    """The body of a scan, and what of it is computed again in the backward pass. One that `picks`
    its weights picks them again, or a copy of them all would be kept.
    """
    policies = {
        "none": _all_but_picked,
        "dots": jax.checkpoint_policies.save_only_these_names(_KEPT),
        "full": None,
    }
    if remat == "none" and not picks:
        return body
    # Inside a scan the compiler cannot merge the recomputation with the forward pass.
    return jax.checkpoint(body, policy=policies[remat], prevent_cse=False)


def _all_but_picked(primitive: Any, *_, **__) -> bool:
    """A policy for `jax.checkpoint`: a slice and what only renames it are not worth keeping."""
    return primitive.name not in ("dynamic_slice", "squeeze", "reshape")


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
