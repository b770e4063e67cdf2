"""Attention within segments of a long sequence: a block of queries meets the keys near it alone.

For CPUs. Its letters: G groups (one for each data shard) of P tokens, B blocks of Q of them, W keys
that a block meets.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lco_jax.nn.attention import attend_scaled
from lco_jax.nn.widths import widths

BLOCK = 128
"""Queries of a block. Of more, its segments are spread wider; of fewer, products are small."""


def attend_near(
    query: Float[Array, "G P N H"],
    key: Float[Array, "G P N H"],
    value: Float[Array, "G P N H"],
    segments: Int[Array, "G P"],
) -> Float[Array, "G P N H"]:
    """Attention within the segments, of a number of tokens that blocks divide.

    A block meets the keys from the first token of its segments to the last: few, where segments
    lie in one piece. Segments are numbered from 1 to at most P; what becomes of 0 means nothing.
    """

    def in_shard(*arrays: Array) -> Array:
        if len(arrays[0]) == 1:
            return _attend_group(*(x[0] for x in arrays))[None]
        return jax.lax.map(lambda group: _attend_group(*group), arrays)

    spec = jax.typeof(query).sharding.spec
    specs = (spec, spec, spec, jax.P(spec[0], None))
    return jax.shard_map(in_shard, in_specs=specs, out_specs=spec)(query, key, value, segments)


def _widths(length: int) -> tuple[int, ...]:
    return widths(BLOCK, length, BLOCK)


def _places(segments: Int[Array, "P"]) -> tuple[Int[Array, "B"], Int[Array, "B"]]:
    """Where the keys of each block begin, and which of the widths they take."""
    length = len(segments)
    index = jnp.arange(length, dtype=jnp.int32)
    first = jnp.full_like(segments, length, shape=(length + 1,)).at[segments].min(index)
    end = jnp.zeros_like(first).at[segments].max(index + 1)
    # Padding needs no keys.
    first, end = first.at[0].set(length), end.at[0].set(0)
    own = segments.reshape(-1, BLOCK)
    first, end = first[own].min(axis=1), end[own].max(axis=1)
    counts = np.array(_widths(length), np.int32)
    kinds = (end - first > counts[:-1, None]).sum(axis=0, dtype=jnp.int32)
    return jnp.minimum(first, length - jnp.asarray(counts)[kinds]), kinds


def _in_blocks(x: Array) -> Array:
    return x.reshape(-1, BLOCK, *x.shape[1:])


@jax.custom_vjp
def _attend_group(
    query: Float[Array, "P N H"],
    key: Float[Array, "P N H"],
    value: Float[Array, "P N H"],
    segments: Int[Array, "P"],
) -> Float[Array, "P N H"]:
    keys = _by_head(key, value)
    branches = [functools.partial(_attend_block, width=width) for width in _widths(len(segments))]

    def attend(block: tuple[Array, ...]) -> Float[Array, "Q N H"]:
        query, own, start, kind = block
        return jax.lax.switch(kind, branches, query, *keys, start, own, segments)

    blocks = (_in_blocks(query), _in_blocks(segments), *_places(segments))
    return jax.lax.map(attend, blocks).reshape(query.shape)


def _attend_group_fwd(*arrays):
    return _attend_group(*arrays), arrays


def _attend_group_bwd(arrays, cotangent):
    query, key, value, segments = arrays
    keys = _by_head(key, value)
    branches = [functools.partial(_add_gradients, width=width) for width in _widths(len(segments))]

    def add(sums, block):
        query, cotangent, own, start, kind = block
        return jax.lax.switch(kind, branches, sums, query, *keys, cotangent, start, own, segments)

    blocks = [_in_blocks(x) for x in (query, cotangent, segments)]
    sums = tuple(jnp.zeros_like(x, jnp.float32) for x in keys)
    sums, gradient = jax.lax.scan(add, sums, (*blocks, *_places(segments)))
    others = (jnp.moveaxis(x, 0, 1).astype(key.dtype) for x in sums)
    return gradient.reshape(query.shape), *others, None


_attend_group.defvjp(_attend_group_fwd, _attend_group_bwd)


def _attend_block(query, key, value, start, own, segments, *, width: int) -> Array:
    """A block of queries to so many keys."""
    near, mask = _near(key, value, start, own, segments, width)
    return _attend_to(query, *near, mask)


def _add_gradients(sums, query, key, value, cotangent, start, own, segments, *, width: int):
    """The sums of gradients of keys and values with those of a block, and that of its queries."""
    near, mask = _near(key, value, start, own, segments, width)
    _, pull_back = jax.vjp(functools.partial(_attend_to, mask=mask), query, *near)
    gradient, *own_sums = pull_back(cotangent)
    return tuple(
        jax.lax.dynamic_update_slice_in_dim(
            total, jax.lax.dynamic_slice_in_dim(total, start, width, axis=1) + part, start, axis=1
        )
        for total, part in zip(sums, own_sums, strict=True)
    ), gradient


def _near(key, value, start, own, segments, width: int) -> tuple[list[Array], Array]:
    """The keys and values that a block meets, and which of them each of its queries sees."""
    near = [jax.lax.dynamic_slice_in_dim(x, start, width, axis=1) for x in (key, value)]
    return near, own[:, None] == jax.lax.dynamic_slice_in_dim(segments, start, width)


def _by_head(*arrays: Float[Array, "P N H"]) -> list[Float[Array, "N P H"]]:
    return [jnp.moveaxis(x, 0, 1) for x in arrays]


def _attend_to(query, key, value, mask) -> Float[Array, "Q N H"]:
    scaled = jnp.moveaxis(query.shape[-1] ** -0.5 * query, 0, 1)
    return attend_scaled(scaled[None, :, None], key[None], value[None], mask[None])[0, :, :, 0]
