"""Masked grouped-query attention over packed rows, with an optional preamble shared by all rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lco_jax.nn.flowing_attention import NearRows, attend_near_rows, near_rows
from lco_jax.nn.linear import dot
from lco_jax.nn.scores import mask_bias, softmax_parts
from lco_jax.nn.splash import attend_long, splash_fits
from lco_jax.nn.stack import keep
from lco_jax.runtime.axes import mesh_platform


class LongRows(NamedTuple):
    """Rows whose mask is never stored: a kernel works it out from their segments."""

    segments: Int[Array, "B S"]


class FlowingRows(NamedTuple):
    """Rows whose items may run on into the next row, but no further.

    They are attended in blocks of queries: X blocks of Q tokens, each beside the T keys of as many
    tokens as a row has before it, and its own.
    """

    mask: Bool[Array, "X Q T"]


Mask = Bool[Array, "B S S"] | LongRows | FlowingRows | NearRows

_SHORTEST_NEAR_ROW = 256
"""Of shorter rows, all keys of a block are about as many as those of its items."""
_SHORTEST_BLOCK = 128
_MOST_BLOCKS = 16
"""Of a row. Of more, keys are copied more often; of fewer, more of them are compared in vain."""


def rows_flow() -> bool:
    """Whether items that are embedded should run on from row to row: no slot between them is idle.

    Only on CPUs, where attention over rows of any length is as fast as over those of a kernel.
    """
    return mesh_platform() == "cpu"


def row_mask(segments: Int[Array, "B S"], head_dim: int, *, flows: bool = False) -> Mask:
    """The causal mask of packed rows, in the form that suits the devices of the mesh.

    Args:
        flows: items may run on into the next row of their shard.
    """
    if flows:
        return _flowing_mask(segments)
    if mesh_platform() == "tpu" and splash_fits(segments.shape[1], head_dim):
        return LongRows(segments)
    return causal_mask(segments)


def causal_mask(segments: Int[Array, "B S"]) -> Bool[Array, "B S S"]:
    """Which keys a query sees: earlier positions of its own segment."""
    same = segments[:, :, None] == segments[:, None, :]
    order = jnp.arange(segments.shape[1])
    return same & (order[:, None] >= order[None, :])


def _flowing_mask(segments: Int[Array, "B S"]) -> FlowingRows | NearRows:
    length = segments.shape[1]
    count = max(
        count
        for count in range(1, _MOST_BLOCKS + 1)
        if length % count == 0 and (count == 1 or length // count >= _SHORTEST_BLOCK)
    )
    own, near = _in_blocks(segments, count), _with_a_row_before(segments, count)
    places, near_places = np.arange(own.shape[1]) + length, np.arange(near.shape[1])
    same = own[:, :, None] == near[:, None, :]
    mask = same & (places[:, None] >= near_places)
    return FlowingRows(mask) if length < _SHORTEST_NEAR_ROW else near_rows(mask)


def _in_blocks(x: Array, count: int) -> Array:
    """Each row `B S` in so many blocks `X Q`."""
    shape = (x.shape[0] * count, x.shape[1] // count, *x.shape[2:])
    return jax.lax.reshape(x, shape, out_sharding=jax.typeof(x).sharding.spec)


def _with_a_row_before(x: Array, count: int) -> Array:
    """Of each block of `_in_blocks` its tokens, behind as many as a row has: `X T`. Those before
    the first row of a shard are zeros.
    """

    def in_shard(x: Array) -> Array:
        own = x.reshape(x.shape[0] * count, x.shape[1] // count, *x.shape[2:])
        padded = jnp.concatenate([jnp.zeros_like(own[:count]), own])
        parts = [padded[first : first + len(own)] for first in range(count + 1)]
        return jnp.concatenate(parts, axis=1)

    spec = jax.typeof(x).sharding.spec
    return jax.shard_map(in_shard, in_specs=spec, out_specs=spec)(x)


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
    if isinstance(mask, NearRows):
        return attend_near_rows(query, key, value, mask, preamble)
    if isinstance(mask, FlowingRows):
        count = mask.mask.shape[0] // query.shape[0]
        near = (_with_a_row_before(x, count) for x in (key, value))
        context = attend(_in_blocks(query, count), *near, mask.mask, preamble)
        return jax.lax.reshape(context, query.shape, out_sharding=jax.typeof(query).sharding.spec)
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
    context = attend_scaled(keep(query), keep(key), keep(value), mask)
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
def attend_scaled(
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
    weights, highest, total = softmax_parts(scores)
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
    """`mask_bias`, made once for all heads: a sum is vectorised, a choice by a broadcast mask is
    not.
    """
    return jax.lax.optimization_barrier(mask_bias(mask))


attend_scaled.defvjp(_attend_fwd, _attend_bwd)
