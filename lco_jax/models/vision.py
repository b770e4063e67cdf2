"""The Qwen2.5 vision tower.

Its letters: G groups (one for each data shard), P patches and M merge units of a group, W rows of
window attention of S patches, K rows of frame attention of T patches, U patches of a merge unit.
A patch has C channels, T frames, Y rows and X columns of pixels, flattened to one C.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.models.config import VisionConfig
from lco_jax.nn.attention import attend
from lco_jax.nn.feed_forward import SwiGlu
from lco_jax.nn.linear import Linear, contract, normal
from lco_jax.nn.norm import RMSNorm
from lco_jax.nn.rope import Rotation, rotate
from lco_jax.nn.splash import attend_long, splash_fits
from lco_jax.nn.stack import Remat, scan_kinds, stacked
from lco_jax.runtime.axes import mesh_platform

_NORM_EPS = 1e-6
_ROPE_THETA = 1e4
"""Neither is in a checkpoint's config. Source: transformers Qwen2_5_VLVisionBlock and
Qwen2_5_VLVisionRotaryEmbedding."""

_MAX_SCORES = 2**22
"""Of one head, at a time: 16 heads of float32 take 256 MB."""
_MAX_SCORES_ON_CPU = 2**18
"""There they should stay in its cache."""
_SHORTEST_BLOCK = 64


class PatchEmbed(nnx.Module):
    """Pixels of a patch to a vector: a convolution whose stride is its kernel, as a product."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.kernel = nnx.Param(normal(rngs, "C T Y X D", config.sizes, dtype))

    def __call__(self, patches: Float[Array, "G P C"]) -> Float[Array, "G P D"]:
        kernel = self.kernel[...]
        return contract(patches, kernel.reshape(-1, kernel.shape[-1]), "GPC,CD->GPD")


class Attention(nnx.Module):
    """Attention of each patch to the patches of its window or of its frame."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        linear = functools.partial(Linear, sizes=config.sizes, use_bias=True, dtype=dtype)
        self.qkv = stacked(lambda rngs: linear("D -> N H", rngs=rngs), 3, rngs)
        self.output = linear("N H -> D", rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "G P D"],
        rotation: Rotation,
        segments: Int[Array, "G W S"],
    ) -> Float[Array, "G P D"]:
        query, key, value = jax.vmap(lambda linear: linear(x))(self.qkv)
        context = _attend_in_rows(rotate(query, rotation), rotate(key, rotation), value, segments)
        return self.output(context)


def _attend_in_rows(
    query: Float[Array, "G P N H"],
    key: Float[Array, "G P N H"],
    value: Float[Array, "G P N H"],
    segments: Int[Array, "G W S"],
) -> Float[Array, "G P N H"]:
    """Attention within the segments, none of which crosses the end of a row.

    On TPUs a kernel keeps the scores of long rows out of memory. Elsewhere some rows are compared
    at a time, long ones in blocks of queries, so that no more than a piece of the scores exists.
    """
    if mesh_platform() == "tpu" and splash_fits(segments.shape[2], query.shape[3]):
        return _attend_by_kernel(query, key, value, segments)
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

    segments = jax.lax.reshape(
        segments, (groups, num_rows * length), out_sharding=jax.P(spec[0], None)
    )
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
    spec = jax.typeof(query).sharding.spec
    rows = (groups * num_rows, length)
    parts = (
        jax.lax.reshape(x, (*rows, *x.shape[2:]), out_sharding=spec) for x in (query, key, value)
    )
    own = jax.lax.reshape(segments, rows, out_sharding=jax.P(spec[0], None))
    context = attend_long(*parts, own, causal=False, interpret=interpret)
    return jax.lax.reshape(context, query.shape, out_sharding=spec)


def _piece(num_rows: int, length: int) -> tuple[int, int]:
    """How many rows of a group are compared at a time, and how many queries of each."""
    most = _MAX_SCORES_ON_CPU if mesh_platform() == "cpu" else _MAX_SCORES
    together = max(
        count
        for count in range(1, num_rows + 1)
        if num_rows % count == 0 and (count == 1 or count * length * length <= most)
    )
    block = length
    while block % 2 == 0 and block > _SHORTEST_BLOCK and together * block * length > most:
        block //= 2
    return together, block


class Block(nnx.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.sizes, eps=_NORM_EPS, dtype=dtype)
        self.attention = Attention(config, dtype, rngs)
        self.mlp_norm = RMSNorm(config.sizes, eps=_NORM_EPS, dtype=dtype)
        self.mlp = SwiGlu(config.sizes, use_bias=True, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "G P D"],
        rotation: Rotation,
        segments: Int[Array, "G W S"],
    ) -> Float[Array, "G P D"]:
        x = x + self.attention(self.attention_norm(x), rotation, segments)
        return x + self.mlp(self.mlp_norm(x))


class PatchMerger(nnx.Module):
    """The patches of a merge unit to one vector of the decoder's width."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"use_bias": True, "dtype": dtype, "rngs": rngs}
        self.norm = RMSNorm(config.sizes, eps=_NORM_EPS, dtype=dtype)
        self.hidden = Linear("U D -> F", config.merger_sizes, **options)
        self.output = Linear("F -> E", config.merger_sizes, **options)
        self.unit_patches = config.unit_patches

    def __call__(self, x: Float[Array, "G P D"]) -> Float[Array, "G M E"]:
        groups, num_patches, width = x.shape
        shape = (groups, num_patches // self.unit_patches, self.unit_patches, width)
        units = self.norm(x).reshape(shape)
        return self.output(jax.nn.gelu(self.hidden(units), approximate=False))


class VisionTower(nnx.Module):
    """Patches to features of the decoder's width, one for each merge unit.

    Patches lie in their budget as `lco_jax.data.encode.positions.PatchLayout` says, and so do the
    features: the tower neither sorts them nor sorts them back.

    Source: transformers Qwen2_5_VisionTransformerPretrainedModel and Qwen2_5OmniVisionEncoder.
    """

    def __init__(self, config: VisionConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        """Random weights of `dtype`, which is that of the activations, too."""
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.patch_embed = PatchEmbed(config, self.dtype, rngs)
        self.blocks = stacked(lambda rngs: Block(config, self.dtype, rngs), config.num_layers, rngs)
        self.merger = PatchMerger(config, self.dtype, rngs)

    def __call__(
        self,
        patches: Float[Array, "G P C"],
        windows: Int[Array, "G W S"],
        frames: Int[Array, "G K T"],
        coordinates: Int[Array, "G P 2"],
        *,
        remat: Remat = "none",
    ) -> Float[Array, "G M E"]:
        """The features of the merge units; those of padding mean nothing."""
        rotation = _rotation(coordinates, self.config.sizes["H"])
        layer_fns = {
            "window": lambda block, x: block(x, rotation, windows),
            "full": lambda block, x: block(x, rotation, frames),
        }
        full = self.config.full_layers
        kinds = ["full" if i in full else "window" for i in range(self.config.num_layers)]
        x = self.patch_embed(patches.astype(self.dtype))
        return self.merger(scan_kinds(layer_fns, self.blocks, x, kinds=kinds, remat=remat))


def _rotation(coordinates: Int[Array, "G P 2"], head_dim: int) -> Rotation:
    """The first half of the frequencies turns with the row, the second with the column."""
    quarter = head_dim // 4
    frequencies = _ROPE_THETA ** (-np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    axis = np.repeat(np.arange(2), quarter)
    angles = coordinates.astype(jnp.float32)[..., axis] * np.tile(frequencies, 2)
    return jnp.cos(angles), jnp.sin(angles)
