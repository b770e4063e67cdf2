"""Attention within segments of long rows, which exist in no mask: of the patches of vision towers.

Its letters: G groups (one for each data shard), P patches of a group, W rows of S patches.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lco_jax.nn.attention import attend
from lco_jax.nn.near_attention import BLOCK, attend_near
from lco_jax.nn.short_attention import MAX_SCORES, attend_short, rows_together
from lco_jax.nn.splash import attend_long, splash_fits
from lco_jax.runtime.axes import mesh_platform

_MAX_SCORES = 2**22
"""Of one head, at a time: 16 heads of float32 take 256 MB."""
_SHORTEST_BLOCK = 64
_SHORTEST_ROW_OF_BLOCKS = 4 * BLOCK
"""On CPUs. In shorter rows, all keys are about as many as the near ones."""
_LANES = 16
"""The kernel takes heads whose widths are multiples of so many."""


def attend_in_rows(
    query: Float[Array, "G P N H"],
    key: Float[Array, "G P N H"],
    value: Float[Array, "G P N H"],
    segments: Int[Array, "G W S"],
) -> Float[Array, "G P N H"]:
    """Attention within the segments, none of which crosses the end of a row.

    Segments are numbered from 1 within a group; what becomes of 0 means nothing. On TPUs a kernel
    keeps the scores of long rows out of memory. Elsewhere some rows are compared at a time, long
    ones in blocks of queries, which on CPUs meet the keys near them alone.
    """
    width = query.shape[3] + _beyond(query.shape[3])
    if mesh_platform() == "tpu" and splash_fits(segments.shape[2], width):
        return _attend_by_kernel(query, key, value, segments)
    length = segments.shape[2]
    if mesh_platform() == "cpu" and length < _SHORTEST_ROW_OF_BLOCKS:
        return _attend_short(query, key, value, segments)
    if mesh_platform() == "cpu" and length % BLOCK == 0:
        return attend_near(query, key, value, _in_one(segments, query))
    return _attend_in_pieces(query, key, value, segments)


def _in_one(segments: Int[Array, "G W S"], x: Float[Array, "G P N H"]) -> Int[Array, "G P"]:
    """The rows of each group one behind the other, as they are in `x`."""
    spec = jax.P(jax.typeof(x).sharding.spec[0], None)
    return jax.lax.reshape(segments, x.shape[:2], out_sharding=spec)


@jax.custom_vjp
def _attend_short(query: Array, key: Array, value: Array, segments: Array) -> Array:
    return attend_short(query, key, value, _in_one(segments, query), segments.shape[2])


def _attend_short_fwd(*arrays):
    return _attend_short(*arrays), arrays


def _attend_short_bwd(arrays, cotangent):
    *parts, segments = arrays
    _, pull_back = jax.vjp(functools.partial(_attend_in_pieces, segments=segments), *parts)
    return *pull_back(cotangent), None


_attend_short.defvjp(_attend_short_fwd, _attend_short_bwd)


def _attend_in_pieces(
    query: Float[Array, "G P N H"],
    key: Float[Array, "G P N H"],
    value: Float[Array, "G P N H"],
    segments: Int[Array, "G W S"],
) -> Float[Array, "G P N H"]:
    """Some rows at a time, or some queries of a long one."""
    groups, num_rows, length = segments.shape
    spec = jax.typeof(query).sharding.spec
    together, block = _piece(num_rows, length)
    num_pieces, num_blocks = num_rows // together, length // block

    def in_pieces(x: Array, spec: jax.P) -> Array:
        """The rows of each piece, those of a group side by side."""
        shape = (groups, num_pieces, together, length, *x.shape[2:])
        x = jax.lax.reshape(x, shape, out_sharding=jax.P(spec[0], None, None, None, *spec[2:]))
        shape = (num_pieces, groups * together, length, *x.shape[4:])
        return jax.lax.reshape(
            jnp.moveaxis(x, 1, 0), shape, out_sharding=jax.P(None, spec[0], None, *spec[2:])
        )

    def in_blocks(x: Array) -> Array:
        """The queries of each block, in all rows of a piece."""
        axes = jax.typeof(x).sharding.spec
        shape = (len(x), num_blocks, block, *x.shape[2:])
        x = jax.lax.reshape(x, shape, out_sharding=jax.P(axes[0], None, None, *axes[2:]))
        return jnp.moveaxis(x, 1, 0)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def attend_block(query: Array, own: Array, key: Array, value: Array, others: Array) -> Array:
        return attend(query, key, value, own[:, :, None] == others[:, None, :])

    def attend_piece(parts: tuple[Array, ...]) -> Array:
        query, key, value, segments = parts
        if num_blocks == 1:
            return attend_block(query, segments, key, value, segments)
        blocks = (in_blocks(query), in_blocks(segments))
        context = jax.lax.map(lambda block: attend_block(*block, key, value, segments), blocks)
        return jax.lax.reshape(
            jnp.moveaxis(context, 0, 1), query.shape, out_sharding=jax.typeof(query).sharding.spec
        )

    segments = _in_one(segments, query)
    pieces = (*(in_pieces(x, spec) for x in (query, key, value)), in_pieces(segments, spec[:2]))
    if num_pieces == 1:
        context = attend_piece(tuple(x[0] for x in pieces))[None]
    else:
        context = jax.lax.map(attend_piece, pieces)
    shape = (num_pieces, groups, together, length, *query.shape[2:])
    context = jax.lax.reshape(
        context, shape, out_sharding=jax.P(None, spec[0], None, None, *spec[2:])
    )
    return jax.lax.reshape(jnp.moveaxis(context, 0, 1), query.shape, out_sharding=spec)


def _attend_by_kernel(
    query: Float[Array, "G P N H"],
    key: Float[Array, "G P N H"],
    value: Float[Array, "G P N H"],
    segments: Int[Array, "G W S"],
    *,
    interpret: bool = False,
) -> Float[Array, "G P N H"]:
    groups, num_rows, length = segments.shape
    width, beyond = query.shape[3], _beyond(query.shape[3])
    if beyond:  # the kernel divides scores by the root of the width that it sees
        query = query * ((width + beyond) / width) ** 0.5
        zeros = ((0, 0), (0, 0), (0, 0), (0, beyond))
        query, key, value = (jnp.pad(x, zeros) for x in (query, key, value))
    spec = jax.typeof(query).sharding.spec
    rows = (groups * num_rows, length)
    parts = (
        jax.lax.reshape(x, (*rows, *x.shape[2:]), out_sharding=spec) for x in (query, key, value)
    )
    own = jax.lax.reshape(segments, rows, out_sharding=jax.P(spec[0], None))
    context = attend_long(*parts, own, causal=False, interpret=interpret)
    return jax.lax.reshape(context, query.shape, out_sharding=spec)[..., :width]


def _beyond(head_dim: int) -> int:
    """By how much heads are made wider for the kernel."""
    return -head_dim % _LANES


def _piece(num_rows: int, length: int) -> tuple[int, int]:
    """How many rows of a group are compared at a time, and how many queries of each."""
    most = MAX_SCORES if mesh_platform() == "cpu" else _MAX_SCORES
    together = rows_together(num_rows, length, most)
    block = length
    while block % 2 == 0 and block > _SHORTEST_BLOCK and together * block * length > most:
        block //= 2
    return together, block
