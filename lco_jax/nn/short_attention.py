"""Attention within segments of short rows, of which every query is compared with every key.

For CPUs, and for the forward pass. Its letters: G groups (one for each data shard) of P tokens, W
rows of S of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lco_jax.nn.linear import dot
from lco_jax.nn.scores import mask_bias, softmax_parts

MAX_SCORES = 2**18
"""Of one head, at a time, on CPUs: they should stay in the cache."""


def attend_short(
    query: Float[Array, "G P N H"],
    key: Float[Array, "G P N H"],
    value: Float[Array, "G P N H"],
    segments: Int[Array, "G P"],
    length: int,
) -> Float[Array, "G P N H"]:
    """Attention within the segments, none of which crosses the end of a row of so many tokens;
    what becomes of 0 means nothing.

    Heads are turned to the front for all rows at once, where that fuses with what made queries and
    keys; and what hides other segments is made before the rows are taken some at a time, or it
    would be made for every head anew.
    """

    def in_shard(*arrays: Array) -> Array:
        *parts, own = arrays
        own = own.reshape(-1, length)
        query, key, value = (_by_head(x, own.shape) for x in parts)
        bias = mask_bias(own[:, :, None] == own[:, None, :])[:, None]
        rows = (query.shape[-1] ** -0.5 * query, key, value, bias)
        context = _some_at_a_time(rows, rows_together(*own.shape, MAX_SCORES))
        return jnp.swapaxes(context, 1, 2).reshape(parts[0].shape)

    spec = jax.typeof(query).sharding.spec
    specs = (spec, spec, spec, jax.P(spec[0], None))
    return jax.shard_map(in_shard, in_specs=specs, out_specs=spec)(query, key, value, segments)


def rows_together(num_rows: int, length: int, most: int) -> int:
    """How many rows are compared at a time, of which one head has at most so many scores (if one
    row has no more).
    """
    return max(
        count
        for count in range(1, num_rows + 1)
        if num_rows % count == 0 and (count == 1 or count * length * length <= most)
    )


def _by_head(x: Float[Array, "G P N H"], rows: tuple[int, int]) -> Float[Array, "W N S H"]:
    return jnp.swapaxes(x.reshape(*rows, *x.shape[2:]), 1, 2)


def _some_at_a_time(rows: tuple[Array, ...], together: int) -> Float[Array, "W N S H"]:
    if together == len(rows[0]):
        return _attend(rows)
    pieces = tuple(x.reshape(-1, together, *x.shape[1:]) for x in rows)
    return jax.lax.map(_attend, pieces).reshape(rows[0].shape)


def _attend(rows: tuple[Array, ...]) -> Float[Array, "W N S H"]:
    """The weighted values of scaled queries."""
    query, key, value, bias = rows
    weights, _, total = softmax_parts(dot("WNSH,WNTH->WNST", query, key) + bias)
    context = dot("WNST,WNTH->WNSH", weights.astype(value.dtype), value) / total
    return context.astype(value.dtype)
