"""The Qwen2.5-Omni audio tower, and with other settings the encoder of Whisper.

Its letters: G groups (one for each data shard), C chunks of a group (B chunks of all groups), M
mels and T frames of a chunk, S rows of a chunk (half its frames), P features of a chunk (half its
rows). A convolution reads X neighbours; O is D again, on the other side of a matrix.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lco_jax.models.config import AudioConfig
from lco_jax.nn.attention import attend
from lco_jax.nn.linear import Linear, contract, normal, zeros
from lco_jax.nn.norm import LayerNorm
from lco_jax.nn.stack import Remat, scan_layers, stacked

_NORM_EPS = 1e-5
_LONGEST_WAVE = 1e4
"""Neither is in a checkpoint's config. Source: torch LayerNorm and transformers
SinusoidsPositionEmbedding."""


class Convolution(nnx.Module):
    """A convolution over time with zeros at both ends, as a product."""

    def __init__(
        self, layout: str, config: AudioConfig, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """`layout` names the channels, e.g. `"M -> D"`."""
        self.inputs, self.outputs = layout.split(" -> ")
        self.stride = stride
        self.kernel = nnx.Param(
            normal(rngs, f"X {self.inputs} {self.outputs}", config.sizes, dtype)
        )
        self.bias = nnx.Param(zeros(self.outputs, config.sizes, dtype))

    def __call__(self, x: Float[Array, "B T inputs"]) -> Float[Array, "B S outputs"]:
        kernel, length = self.kernel[...], x.shape[1]
        width = kernel.shape[0]
        x = jnp.pad(x, ((0, 0), (width // 2, width // 2), (0, 0)))
        neighbours = [x[:, first : first + length : self.stride] for first in range(width)]
        y = contract(
            jnp.stack(neighbours, axis=2),
            kernel,
            f"BTX{self.inputs},X{self.inputs}{self.outputs}->BT{self.outputs}",
        )
        # Moves D values, as in `Linear`.
        return y + jax.reshard(self.bias[...], jax.P(None)).astype(y.dtype)


class Attention(nnx.Module):
    """Attention of each row to the real rows of its chunk."""

    def __init__(self, config: AudioConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.query = Linear("D -> N H", config.sizes, use_bias=True, **options)
        self.key = Linear("D -> N H", config.sizes, **options)
        self.value = Linear("D -> N H", config.sizes, use_bias=True, **options)
        self.output = Linear("N H -> D", config.sizes, use_bias=True, **options)

    def __call__(
        self, x: Float[Array, "B S D"], mask: Bool[Array, "B S S"]
    ) -> Float[Array, "B S D"]:
        return self.output(attend(self.query(x), self.key(x), self.value(x), mask))


class Mlp(nnx.Module):
    """output(gelu(hidden(x))), with biases."""

    def __init__(self, config: AudioConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.hidden = Linear("D -> F", config.sizes, use_bias=True, dtype=dtype, rngs=rngs)
        self.output = Linear("F -> D", config.sizes, use_bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        return self.output(_gelu(self.hidden(x)))


class Layer(nnx.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: AudioConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention_norm = LayerNorm(config.sizes, eps=_NORM_EPS, dtype=dtype)
        self.attention = Attention(config, dtype, rngs)
        self.mlp_norm = LayerNorm(config.sizes, eps=_NORM_EPS, dtype=dtype)
        self.mlp = Mlp(config, dtype, rngs)

    def __call__(
        self, x: Float[Array, "B S D"], mask: Bool[Array, "B S S"]
    ) -> Float[Array, "B S D"]:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class AudioTower(nnx.Module):
    """Chunks of mel frames to features of the decoder's width, one for four frames.

    A chunk is encoded on its own: neither convolutions nor attention see its neighbours, and its
    positions begin at 0. So chunks may lie in any order and recordings may share a budget.

    Source: transformers Qwen2_5OmniAudioEncoder; WhisperEncoder if the config has stored positions
    and no output width.
    """

    def __init__(self, config: AudioConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        """Random weights of `dtype`, which is that of the activations, too."""
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.conv1 = Convolution("M -> D", config, 1, self.dtype, rngs)
        self.conv2 = Convolution("D -> O", config, 2, self.dtype, rngs)
        self.positions = nnx.data(None)
        if config.has_stored_positions:
            self.positions = nnx.Param(normal(rngs, "S D", config.sizes, self.dtype))
        self.layers = stacked(lambda rngs: Layer(config, self.dtype, rngs), config.num_layers, rngs)
        self.final_norm = LayerNorm(config.sizes, eps=_NORM_EPS, dtype=self.dtype)
        self.output = nnx.data(None)
        if config.out_size is not None:
            self.output = Linear("D -> E", config.sizes, use_bias=True, dtype=self.dtype, rngs=rngs)

    def __call__(
        self,
        mel: Float[Array, "G C M T"],
        num_frames: Int[Array, "G C"],
        *,
        remat: Remat = "none",
    ) -> Float[Array, "G C P E"]:
        """The features of each chunk.

        Args:
            mel: log-mel frames; those beyond a chunk's number are not looked at.
            num_frames: the real frames of each chunk, 0 for a chunk that is padding. Of its
                features the first `(num_frames + 1) // 4` are real, the others mean nothing.

        Raises:
            ValueError: the mel frames are not those of the config.
        """
        groups, chunks, num_mels, length = mel.shape
        if (num_mels, length) != (self.config.num_mels, self.config.chunk_frames):
            raise ValueError(
                f"chunks of {num_mels} mels and {length} frames; this tower reads "
                f"{self.config.num_mels} mels and {self.config.chunk_frames} frames"
            )
        group_axis = jax.typeof(mel).sharding.spec[0]

        def reshape(x: Array, *shape: int) -> Array:
            spec = jax.P(group_axis, *(None for _ in shape[1:]))
            return jax.lax.reshape(x, shape, out_sharding=spec)

        num_frames = reshape(num_frames, groups * chunks)[:, None]
        is_frame = (np.arange(length) < num_frames)[..., None]
        is_row = np.arange(length // 2) < (num_frames + 1) // 2
        mask = jnp.broadcast_to(is_row[:, None, :], (*is_row.shape, length // 2))

        def run(layer: Layer, _: Int[Array, ""], x: Float[Array, "B S D"]):
            return layer(x, mask), None

        x = reshape(mel.astype(self.dtype), groups * chunks, num_mels, length).swapaxes(1, 2)
        x = _gelu(self.conv1(jnp.where(is_frame, x, 0)))
        x = _gelu(self.conv2(jnp.where(is_frame, x, 0)))
        x = x + self._position_rows(length // 2)
        x, _ = scan_layers(run, self.layers, x, num_layers=self.config.num_layers, remat=remat)
        if self.output is not None:
            x = (x[:, ::2] + x[:, 1::2]) / 2
        x = self.final_norm(x)
        if self.output is not None:
            x = self.output(x)
        return reshape(x, groups, chunks, *x.shape[1:])

    def _position_rows(self, num_rows: int) -> Float[Array, "S D"]:
        if self.positions is None:
            return jnp.asarray(_sinusoids(num_rows, self.config.hidden_size), self.dtype)
        # Moves S x D values, sharded like any weight.
        return jax.reshard(self.positions[...], jax.P(None, None)).astype(self.dtype)


def _gelu(x: Float[Array, "*x"]) -> Float[Array, "*x"]:
    return jax.nn.gelu(x, approximate=False)


def _sinusoids(num_rows: int, width: int) -> Float[np.ndarray, "S D"]:
    """Sines in the first half of the width, cosines in the second."""
    step = np.log(_LONGEST_WAVE) / (width // 2 - 1)
    frequencies = np.exp((-step * np.arange(width // 2)).astype(np.float32))
    angles = np.arange(num_rows, dtype=np.float32)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
