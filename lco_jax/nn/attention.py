"""Masked grouped-query attention over packed rows, with an optional preamble shared by all rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lco_jax.nn.linear import dot
from lco_jax.nn.splash import attend_long, splash_fits
from lco_jax.nn.stack import keep
from lco_jax.runtime.axes import mesh_platform

_NEVER = 0.5 * float(jnp.finfo(jnp.float32).min)


class LongRows(NamedTuple):
    """Rows whose mask is never stored: a kernel works it out from their segments."""

    segments: Int[Array, "B S"]


Mask = Bool[Array, "B S S"] | LongRows


def row_mask(segments: Int[Array, "B S"], head_dim: int) -> Mask:
    """The causal mask of packed rows, in the form that suits the devices of the mesh."""
    if mesh_platform() == "tpu" and splash_fits(segments.shape[1], head_dim):
        return LongRows(segments)
    return causal_mask(segments)


def causal_mask(segments: Int[Array, "B S"]) -> Bool[Array, "B S S"]:
    """Which keys a query sees: earlier positions of its own segment."""
    same = segments[:, :, None] == segments[:, None, :]
    order = jnp.arange(segments.shape[1])
    return same & (order[:, None] >= order[None, :])


def attend(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Mask,
    preamble: tuple[Float[Array, "1 P K H"], Float[Array, "1 P K H"]] | None = None,
) -> Float[Array, "B S N H"]:
    """Softmax attention; the keys and values of `preamble` are visible to every query of every row.

    The preamble is one set of keys for the whole batch and stands in front of those of every row,
    so the result is that of rows which begin with it.
    """
    if isinstance(mask, LongRows):
        return attend_long(query, key, value, mask.segments, preamble)
    rows, length, num_heads, head_dim = query.shape
    num_kv_heads = key.shape[2]
    spec = jax.typeof(query).sharding.spec
    if preamble is not None:
        key, value = (_join(*parts) for parts in zip(preamble, (key, value), strict=True))
        mask = jnp.pad(mask, ((0, 0), (0, 0), (preamble[0].shape[1], 0)), constant_values=True)

    grouped = (rows, length, num_kv_heads, num_heads // num_kv_heads, head_dim)
    query = jax.lax.reshape(query, grouped, out_sharding=jax.P(*spec[:3], None, None))
    # In this order of dimensions nothing has to be moved for a product.
    query = jnp.einsum("BSKGH->BKGSH", head_dim**-0.5 * query)
    key, value = (jnp.einsum("BTKH->BKTH", x) for x in (key, value))
    context = _attend(keep(query), keep(key), keep(value), mask)
    return jax.lax.reshape(context, (rows, length, num_heads, head_dim), out_sharding=spec)


def _join(
    preamble: Float[Array, "1 P K H"], own: Float[Array, "B T K H"]
) -> Float[Array, "B U K H"]:
    shape = (own.shape[0], *preamble.shape[1:])
    repeated = jax.lax.broadcast_in_dim(
        preamble[0], shape, (1, 2, 3), out_sharding=jax.typeof(own).sharding.spec
    )
    return jnp.concatenate([repeated, own], axis=1)


@jax.custom_vjp
def _attend(
    query: Float[Array, "B K G S H"],
    key: Float[Array, "B K T H"],
    value: Float[Array, "B K T H"],
    mask: Bool[Array, "B S T"],
) -> Float[Array, "B S K G H"]:
    """The weighted values of scaled queries.

    The backward pass computes the weights again: they are larger than all else in a layer.
    """
    return _attend_fwd(query, key, value, mask)[0]


def _attend_fwd(query, key, value, mask):
    scores = dot("BKGSH,BKTH->BKGST", query, key) + _bias(mask)[:, None, None]
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    # The sum divides the small context instead of the large weights.
    context = dot("BKGST,BKTH->BKGSH", weights.astype(value.dtype), value) / total
    context = keep(jnp.einsum("BKGSH->BSKGH", context).astype(value.dtype))
    return context, (query, key, value, mask, keep(highest), keep(total), context)


def _attend_bwd(residuals, cotangent):
    query, key, value, mask, highest, total, context = residuals
    mean = jnp.sum(cotangent.astype(jnp.float32) * context, axis=-1, keepdims=True)
    cotangent, mean = (jnp.einsum("BSKGH->BKGSH", x) / total for x in (cotangent, mean))
    cotangent = cotangent.astype(value.dtype)
    # Keys first: then two of the three products below need no transposed copy.
    highest, mean = (jnp.einsum("BKGSX->BKXGS", x) for x in (highest, mean))
    bias = _bias(jnp.einsum("BST->BTS", mask))
    scores = dot("BKTH,BKGSH->BKTGS", key, query) + bias[:, None, :, None]
    weights = jnp.exp(scores - highest)
    grad_scores = weights * (dot("BKTH,BKGSH->BKTGS", value, cotangent) - mean)
    grad_scores = grad_scores.astype(query.dtype)
    grad_query = dot("BKTGS,BKTH->BKGSH", grad_scores, key)
    grad_key = dot("BKTGS,BKGSH->BKTH", grad_scores, query)
    grad_value = dot("BKTGS,BKGSH->BKTH", weights.astype(value.dtype), cotangent)
    gradients = (grad_query, grad_key, grad_value)
    return *(x.astype(query.dtype) for x in gradients), None


def _bias(mask: Bool[Array, "B S T"]) -> Float[Array, "B S T"]:
    """Zero where the mask is true, and so low elsewhere that no score is left beside it.

    It is made once for all heads: a sum is vectorised, a choice by a broadcast mask is not.
    """
    return jax.lax.optimization_barrier(jnp.where(mask, 0.0, _NEVER).astype(jnp.float32))


_attend.defvjp(_attend_fwd, _attend_bwd)
