"""Rotary position embeddings; sines and cosines stay float32."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lco_jax.nn.rope_scaling import RopeScaling, rope_frequencies

Rotation = tuple[Float[Array, "B S h"], Float[Array, "B S h"]]
"""Cosine and sine for the H / 2 frequencies of every position."""


def mrope(
    positions: Int[Array, "B S 3"],
    *,
    head_dim: int,
    theta: float,
    section: tuple[int, ...] | None,
    interleaved: bool = False,
    scaling: RopeScaling | None = None,
) -> Rotation:
    """The rotation of positions with a time, a height and a width axis.

    The frequencies are cut into contiguous blocks that turn with one axis each; or, interleaved,
    the axes take turns as long as the sections of height and width last, and time has the rest.
    Text has three equal axes, for which this is ordinary RoPE.

    Source: transformers Qwen2_5_VLRotaryEmbedding and apply_multimodal_rotary_pos_emb;
    Qwen3VLTextRotaryEmbedding.
    """
    frequencies, scale = rope_frequencies(head_dim, theta, scaling)
    axis = np.zeros(len(frequencies), np.int32)
    if section and interleaved:
        for index in (1, 2):
            axis[index : 3 * section[index] : 3] = index
    elif section:
        axis = np.repeat(np.arange(3), section)
    angles = positions.astype(jnp.float32)[..., axis] * frequencies
    return scale * jnp.cos(angles), scale * jnp.sin(angles)


def grid_rotation(coordinates: Int[Array, "B S 2"], head_dim: int, theta: float) -> Rotation:
    """The rotation of patches of an image: the first half of the frequencies turns with the row,
    the second with the column.

    Source: transformers Qwen2_5_VisionRotaryEmbedding, Qwen3VLVisionRotaryEmbedding.
    """
    quarter = head_dim // 4
    frequencies = theta ** (-np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    axis = np.repeat(np.arange(2), quarter)
    angles = coordinates.astype(jnp.float32)[..., axis] * np.tile(frequencies, 2)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B S N H"], rotation: Rotation) -> Float[Array, "B S N H"]:
    """Turn the pairs (x[i], x[i + H / 2]).

    Source: transformers apply_rotary_pos_emb. The products are taken in float32, where
    transformers takes them in the activation dtype.
    """
    cos, sin = (part[:, :, None, :] for part in rotation)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
