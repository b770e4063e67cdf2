"""The CLIP vision tower of models that read an image as tiles of one size.

Its letters: G groups (one for each data shard), X tiles of a group, P patches of all its tiles,
S rows of a tile (its patches behind the class token), M features of a group: one for each patch,
and the one that ends lines. In layouts of weights, a patch has C channels, Y rows and X columns of
pixels, and O is the width E of the decoder on the other side of a matrix.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.models.tile_config import TileConfig
from lco_jax.nn.linear import Linear, contract, normal
from lco_jax.nn.norm import LayerNorm
from lco_jax.nn.row_attention import attend_in_rows
from lco_jax.nn.stack import Remat, scan_layers, stacked
from lco_jax.runtime.axes import mesh_platform

_LANES = 128
"""Of a TPU: its attention kernel takes rows of multiples of so many."""
_QUICK = 1.702
"""Source: transformers QuickGELUActivation."""


class Attention(nnx.Module):
    """Attention of each row to the rows of its tile."""

    def __init__(self, config: TileConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        linear = functools.partial(Linear, sizes=config.sizes, use_bias=True, dtype=dtype)
        self.qkv = stacked(lambda rngs: linear("D -> N H", rngs=rngs), 3, rngs)
        self.output = linear("N H -> D", rngs=rngs)

    def __call__(
        self, x: Float[Array, "G P D"], segments: Int[Array, "G X S"]
    ) -> Float[Array, "G P D"]:
        query, key, value = jax.vmap(lambda linear: linear(x))(self.qkv)
        return self.output(attend_in_rows(query, key, value, segments))


class Mlp(nnx.Module):
    """output(quick_gelu(hidden(x))), with biases."""

    def __init__(self, config: TileConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.hidden = Linear("D -> F", config.sizes, use_bias=True, dtype=dtype, rngs=rngs)
        self.output = Linear("F -> D", config.sizes, use_bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "G P D"]) -> Float[Array, "G P D"]:
        hidden = self.hidden(x)
        return self.output(hidden * jax.nn.sigmoid(_QUICK * hidden))


class Block(nnx.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: TileConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention_norm = LayerNorm(config.sizes, eps=config.norm_eps, dtype=dtype)
        self.attention = Attention(config, dtype, rngs)
        self.mlp_norm = LayerNorm(config.sizes, eps=config.norm_eps, dtype=dtype)
        self.mlp = Mlp(config, dtype, rngs)

    def __call__(
        self, x: Float[Array, "G P D"], segments: Int[Array, "G X S"]
    ) -> Float[Array, "G P D"]:
        x = x + self.attention(self.attention_norm(x), segments)
        return x + self.mlp(self.mlp_norm(x))


class Embed(nnx.Module):
    """Pixels of the patches of a tile to its first rows: the class token, then the patches, each
    with the position that is stored for it."""

    def __init__(self, config: TileConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.kernel = nnx.Param(normal(rngs, "C Y X D", config.sizes, dtype))
        self.first = nnx.Param(normal(rngs, "D", config.sizes, dtype))
        self.positions = nnx.Param(normal(rngs, "S D", config.sizes, dtype))
        self.tile_patches = config.tile_patches

    def __call__(self, patches: Float[Array, "G P C"]) -> Float[Array, "G X S D"]:
        kernel = self.kernel[...]
        x = contract(patches, kernel.reshape(-1, kernel.shape[-1]), "GPC,CD->GPD")
        x = _reshape(x, len(x), -1, self.tile_patches, x.shape[-1])
        # Each moves its values: weights are sharded, these activations' widths are whole.
        first = jax.reshard(self.first[...], jax.P(None)).astype(x.dtype)
        positions = jax.reshard(self.positions[...], jax.P(None, None)).astype(x.dtype)
        patches = x + positions[1:]
        first = jnp.broadcast_to(first + positions[0], (*x.shape[:2], 1, x.shape[3]))
        first = jax.reshard(first, jax.typeof(x).sharding.spec)
        return jnp.concatenate([first, patches], axis=2)


class Projector(nnx.Module):
    """output(gelu(hidden(x))): from the width of the tower to that of the decoder."""

    def __init__(self, config: TileConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"use_bias": config.has_projector_bias, "dtype": dtype, "rngs": rngs}
        self.hidden = Linear("D -> E", config.sizes, **options)
        self.output = Linear("E -> O", config.sizes, **options)

    def __call__(self, x: Float[Array, "G P D"]) -> Float[Array, "G P E"]:
        return self.output(jax.nn.gelu(self.hidden(x), approximate=False))


class TileTower(nnx.Module):
    """Patches of tiles to features of the decoder's width, one for each, and behind them the one
    that ends the lines of all images.

    Source: transformers CLIPVisionModel, LlavaNextMultiModalProjector, and of LlavaNextModel what
    `get_image_features` reads of the tower.
    """

    def __init__(self, config: TileConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        """Random weights of `dtype`, which is that of the activations, too."""
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.embed = Embed(config, self.dtype, rngs)
        self.first_norm = LayerNorm(config.sizes, eps=config.norm_eps, dtype=self.dtype)
        self.blocks = stacked(lambda rngs: Block(config, self.dtype, rngs), config.num_layers, rngs)
        self.projector = Projector(config, self.dtype, rngs)
        self.newline = nnx.Param(normal(rngs, "O", config.sizes, self.dtype))

    def __call__(
        self,
        patches: Float[Array, "G P C"],
        frames: Int[Array, "G X T"],
        *,
        remat: Remat = "none",
    ) -> Float[Array, "G M E"]:
        """The features of the patches of all tiles; those of padding mean nothing.

        Args:
            patches: of tile after tile, row by row.
            frames: the tile of each patch, numbered from 1; 0 is padding.
        """
        x = self.first_norm(self.embed(patches.astype(self.dtype)))
        length = _row_length(x.shape[2])
        beyond = length - x.shape[2]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, beyond), (0, 0)))
        segments = jnp.concatenate([frames[..., :1], frames], axis=2)
        segments = jnp.pad(segments, ((0, 0), (0, 0), (0, beyond)), constant_values=-1)
        groups, tiles, _, width = x.shape

        def run(block: Block, _: Int[Array, ""], x: Float[Array, "G P D"]):
            return block(x, segments), None

        x = _reshape(x, groups, tiles * length, width)
        x, _ = scan_layers(run, self.blocks, x, num_layers=self.config.num_layers, remat=remat)
        x = _reshape(x, groups, tiles, length, width)[:, :, 1 : self.config.tile_patches + 1]
        x = self.projector(_reshape(x, groups, -1, width))
        newline = jax.reshard(self.newline[...], jax.P(None)).astype(x.dtype)
        newline = jnp.broadcast_to(newline, (groups, 1, x.shape[2]))
        return jnp.concatenate([x, jax.reshard(newline, jax.typeof(x).sharding.spec)], axis=1)


def _row_length(num_rows: int) -> int:
    """Of attention: on TPUs such that its kernel takes it."""
    return -(-num_rows // _LANES) * _LANES if mesh_platform() == "tpu" else num_rows


def _reshape(x: Array, *shape: int) -> Array:
    """`x` of another shape, whose groups stay where they are."""
    shape = tuple(x.size // -math.prod(shape) if size == -1 else size for size in shape)
    spec = jax.P(jax.typeof(x).sharding.spec[0], *(None for _ in shape[1:]))
    return jax.lax.reshape(x, shape, out_sharding=spec)
