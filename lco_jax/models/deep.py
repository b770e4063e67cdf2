"""The Qwen3-VL vision tower, whose inner layers give features, too.

Its letters: G groups (one for each data shard), P patches and M merge units of a group, W rows of
S patches, U patches of a merge unit. A patch has C channels, T frames, Y rows and X columns of
pixels, flattened to one C.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.models.deep_config import DeepConfig
from lco_jax.models.vision import Attention, PatchEmbed
from lco_jax.nn.linear import Linear, normal
from lco_jax.nn.norm import LayerNorm
from lco_jax.nn.rope import Rotation, grid_rotation
from lco_jax.nn.stack import Remat, scan_layers, stacked

_NORM_EPS = 1e-6
_ROPE_THETA = 1e4
"""Neither is in the hub's configs. Source: transformers Qwen3VLVisionBlock, Qwen3VLVisionConfig."""


class Mlp(nnx.Module):
    """output(gelu(hidden(x))), with biases and the approximation of gelu by tanh."""

    def __init__(self, config: DeepConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.hidden = Linear("D -> F", config.sizes, use_bias=True, dtype=dtype, rngs=rngs)
        self.output = Linear("F -> D", config.sizes, use_bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "G P D"]) -> Float[Array, "G P D"]:
        return self.output(jax.nn.gelu(self.hidden(x), approximate=True))


class Block(nnx.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: DeepConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention_norm = LayerNorm(config.sizes, eps=_NORM_EPS, dtype=dtype)
        self.attention = Attention(config, dtype, rngs)
        self.mlp_norm = LayerNorm(config.sizes, eps=_NORM_EPS, dtype=dtype)
        self.mlp = Mlp(config, dtype, rngs)

    def __call__(
        self, x: Float[Array, "G P D"], rotation: Rotation, frames: Int[Array, "G W S"]
    ) -> Float[Array, "G P D"]:
        x = x + self.attention(self.attention_norm(x), rotation, frames)
        return x + self.mlp(self.mlp_norm(x))


class UnitMerger(nnx.Module):
    """The patches of a merge unit to one vector of the decoder's width.

    Args:
        norms_units: whether a unit is normed as one vector, or each of its patches.
    """

    def __init__(self, config: DeepConfig, norms_units: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"use_bias": True, "dtype": dtype, "rngs": rngs}
        over = "U D" if norms_units else "D"
        self.norm = LayerNorm(config.sizes, eps=_NORM_EPS, dtype=dtype, over=over)
        self.hidden = Linear("U D -> F", config.merger_sizes, **options)
        self.output = Linear("F -> E", config.merger_sizes, **options)
        self.unit_patches = config.unit_patches

    def __call__(self, x: Float[Array, "G P D"]) -> Float[Array, "G M E"]:
        groups, num_patches, width = x.shape
        units = x.reshape(groups, num_patches // self.unit_patches, self.unit_patches, width)
        return self.output(jax.nn.gelu(self.hidden(self.norm(units)), approximate=False))


class DeepTower(nnx.Module):
    """Patches to features of the decoder's width, several for each merge unit, side by side: what
    the decoder reads, and what it adds after its first layers.

    Source: transformers Qwen3VLVisionModel.
    """

    def __init__(self, config: DeepConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        """Random weights of `dtype`, which is that of the activations, too."""
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.patch_embed = PatchEmbed(config, self.dtype, rngs, use_bias=True)
        self.positions = nnx.Param(normal(rngs, "S D", config.sizes, self.dtype))
        self.blocks = stacked(lambda rngs: Block(config, self.dtype, rngs), config.num_layers, rngs)
        self.merger = UnitMerger(config, False, self.dtype, rngs)
        self.deep_mergers = nnx.data(None)
        if config.deep_layers:
            self.deep_mergers = stacked(
                lambda rngs: UnitMerger(config, True, self.dtype, rngs),
                len(config.deep_layers),
                rngs,
            )

    def __call__(
        self,
        patches: Float[Array, "G P C"],
        frames: Int[Array, "G W S"],
        coordinates: Int[Array, "G P 4"],
        *,
        remat: Remat = "none",
    ) -> Float[Array, "G M E"]:
        """The features of the merge units; those of padding mean nothing.

        Args:
            frames: the frame of each patch, numbered from 1; 0 is padding.
            coordinates: row and column of each patch, and the rows and columns of its frame.
        """
        rotation = grid_rotation(coordinates[..., :2], self.config.sizes["H"], _ROPE_THETA)

        def run(block: Block, _: Int[Array, ""], x: Float[Array, "G P D"]):
            return block(x, rotation, frames), None

        x = self.patch_embed(patches.astype(self.dtype))
        x = x + self._interpolated(coordinates).astype(self.dtype)
        deep, first = [], 0
        for number, last in enumerate(self.config.deep_layers):
            x = self._run_blocks(run, x, first, last + 1, remat)
            merger = jax.tree.map(lambda weight: weight[number], self.deep_mergers)  # noqa: B023
            deep.append(merger(x))
            first = last + 1
        x = self._run_blocks(run, x, first, self.config.num_layers, remat)
        return jnp.concatenate([self.merger(x), *deep], axis=-1)

    def _run_blocks(self, run, x: Array, first: int, end: int, remat: Remat) -> Array:
        if first == end:
            return x
        own = jax.tree.map(lambda weight: weight[first:end], self.blocks)
        return scan_layers(run, own, x, num_layers=end - first, remat=remat)[0]

    def _interpolated(self, coordinates: Int[Array, "G P 4"]) -> Float[Array, "G P D"]:
        """The position of each patch, between the four nearest of those that are stored for a
        square which is stretched over the frame.
        """
        side = self.config.table_side
        place, size = coordinates[..., :2], coordinates[..., 2:]
        source = place * ((side - 1) / jnp.maximum(size - 1, 1).astype(jnp.float32))
        low = jnp.clip(jnp.floor(source).astype(jnp.int32), 0, side - 1)
        share = source - low
        # Moves S x D values: weights are sharded, these activations' widths are whole.
        table = jax.reshard(self.positions[...], jax.P(None, None))
        spec = jax.P(*jax.typeof(coordinates).sharding.spec[:2], None)
        found = 0.0
        for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = (jnp.minimum(low[..., i] + corner[i], side - 1) for i in range(2))
            by_row, by_column = (
                share[..., i] if corner[i] else 1 - share[..., i] for i in range(2)
            )
            stored = table.at[row * side + column].get(out_sharding=spec)
            found = found + (by_row * by_column)[..., None] * stored.astype(jnp.float32)
        return found
