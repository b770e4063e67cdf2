"""Attention in long rows whose items run on: a block of queries meets the keys of its own items.

For CPUs. Its letters: X blocks of Q tokens, each beside the T keys that end with its own.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lco_jax.nn.linear import dot
from lco_jax.nn.scores import mask_bias, softmax_parts
from lco_jax.nn.widths import widths

_WIDTH_STEP = 64
"""Keys by which the numbers that a block may meet differ at least."""


class NearRows(NamedTuple):
    """What the blocks see of the keys up to their last: those of an item that began before a block
    are some of the last ones.
    """

    bias: Float[Array, "X Q T"]
    kinds: Int[Array, "X"]
    """Which of the widths holds all that a block sees."""


def near_rows(mask: Bool[Array, "X Q T"]) -> NearRows:
    """The same mask, and how many of the last keys each block needs."""
    _, length, reach = mask.shape
    seen = jnp.argmax(mask.any(axis=1), axis=1)
    needed = jnp.where(mask.any(axis=(1, 2)), reach - seen, 0)
    counts = np.array(widths(length, reach, _WIDTH_STEP)[:-1], np.int32)
    kinds = jnp.sum(needed[:, None] > counts, axis=1, dtype=jnp.int32)
    return NearRows(mask_bias(mask), kinds)


def attend_near_rows(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    rows: NearRows,
    preamble: tuple[Float[Array, "1 P K H"], Float[Array, "1 P K H"]] | None,
) -> Float[Array, "B S N H"]:
    """Softmax attention as of `lco_jax.nn.attention.attend`; before the first row of a shard there
    are zeros.
    """
    spec = jax.typeof(query).sharding.spec
    of_rows = NearRows(jax.P(spec[0], None, None), jax.P(spec[0]))
    specs = (spec, spec, jax.P(None, None, *spec[2:]), of_rows)
    attend = jax.shard_map(_attend_shard, in_specs=specs, out_specs=spec)
    return attend(query, (key, value), preamble, rows)


def _attend_shard(query, keys, preamble, rows: NearRows) -> Float[Array, "B S N H"]:
    (count, length, reach), (num_kv_heads, head_dim) = rows.bias.shape, keys[0].shape[2:]
    blocks = query.reshape(count, length, num_kv_heads, -1, head_dim)
    scaled = jnp.einsum("XQKGH->XKGQH", head_dim**-0.5 * blocks)
    before = ((reach - length, 0), (0, 0), (0, 0))
    keys = [jnp.pad(x.reshape(-1, num_kv_heads, head_dim), before) for x in keys]
    keys = [jnp.moveaxis(x, 0, 1) for x in keys]
    shared = [jnp.moveaxis(x[0], 0, 1) for x in preamble] if preamble else None
    branches = [
        functools.partial(_attend_block, shared, width=width)
        for width in widths(length, reach, _WIDTH_STEP)
    ]

    def attend(block: tuple[Array, ...]) -> Float[Array, "K G Q H"]:
        query, bias, kind, index = block
        return jax.lax.switch(kind, branches, query, *keys, bias, index * length + reach)

    numbers = jnp.arange(count, dtype=jnp.int32)
    context = jax.lax.map(attend, (scaled, *rows, numbers))
    return jnp.einsum("XKGQH->XQKGH", context).reshape(query.shape)


def _attend_block(shared, query, key, value, bias, end, *, width: int) -> Float[Array, "K G Q H"]:
    """The weighted values of scaled queries: so many before `end`, and the shared ones."""
    near = [jax.lax.dynamic_slice_in_dim(x, end - width, width, axis=1) for x in (key, value)]
    bias = bias[:, -width:]
    if shared is not None:
        near = [jnp.concatenate(parts, axis=1) for parts in zip(shared, near, strict=True)]
        bias = jnp.pad(bias, ((0, 0), (shared[0].shape[1], 0)))
    key, value = near
    weights, _, total = softmax_parts(dot("KGQH,KTH->KGQT", query, key) + bias)
    return (dot("KGQT,KTH->KGQH", weights.astype(value.dtype), value) / total).astype(value.dtype)
