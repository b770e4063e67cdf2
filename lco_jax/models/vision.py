"""The Qwen2.5 vision tower.

Its letters: G groups (one for each data shard), P patches and M merge units of a group, W rows of
window attention of S patches, K rows of frame attention of T patches, U patches of a merge unit.
A patch has C channels, T frames, Y rows and X columns of pixels, flattened to one C.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.models.config import VisionConfig
from lco_jax.models.deep_config import DeepConfig
from lco_jax.nn.feed_forward import SwiGlu
from lco_jax.nn.linear import Linear, contract, normal, zeros
from lco_jax.nn.norm import RMSNorm
from lco_jax.nn.rope import Rotation, grid_rotation, rotate
from lco_jax.nn.row_attention import attend_in_rows
from lco_jax.nn.stack import Remat, scan_kinds, stacked

_NORM_EPS = 1e-6
_ROPE_THETA = 1e4
"""Neither is in a checkpoint's config. Source: transformers Qwen2_5_VLVisionBlock and
Qwen2_5_VLVisionRotaryEmbedding."""


class PatchEmbed(nnx.Module):
    """Pixels of a patch to a vector: a convolution whose stride is its kernel, as a product."""

    def __init__(
        self,
        config: VisionConfig | DeepConfig,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        *,
        use_bias: bool = False,
    ):
        self.kernel = nnx.Param(normal(rngs, "C T Y X D", config.sizes, dtype))
        self.bias = nnx.data(None)
        if use_bias:
            self.bias = nnx.Param(zeros("D", config.sizes, dtype))

    def __call__(self, patches: Float[Array, "G P C"]) -> Float[Array, "G P D"]:
        kernel = self.kernel[...]
        x = contract(patches, kernel.reshape(-1, kernel.shape[-1]), "GPC,CD->GPD")
        if self.bias is None:
            return x
        # Moves D values: the bias is sharded like any weight, these activations are whole.
        return x + jax.reshard(self.bias[...], jax.P(None)).astype(x.dtype)


class Attention(nnx.Module):
    """Attention of each patch to the patches of its window or of its frame."""

    def __init__(self, config: VisionConfig | DeepConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
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
        context = attend_in_rows(rotate(query, rotation), rotate(key, rotation), value, segments)
        return self.output(context)


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
        rotation = grid_rotation(coordinates, self.config.sizes["H"], _ROPE_THETA)
        layer_fns = {
            "window": lambda block, x: block(x, rotation, windows),
            "full": lambda block, x: block(x, rotation, frames),
        }
        full = self.config.full_layers
        kinds = ["full" if i in full else "window" for i in range(self.config.num_layers)]
        x = self.patch_embed(patches.astype(self.dtype))
        return self.merger(scan_kinds(layer_fns, self.blocks, x, kinds=kinds, remat=remat))
