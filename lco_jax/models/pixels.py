"""From bytes to what a vision tower reads, on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def normalised(
    levels: UInt8[Array, "G P W"],
    statistics: Float[Array, "G 2 C"],
    frames: int,
    pixels: int,
) -> Float[Array, "G P X"]:
    """The normalised pixels of patches, float32.

    Args:
        levels: between 0 and 255, in the order (channel, frame, row, column); patches of still
            images may have one frame, which is repeated.
        statistics: mean and standard deviation of each channel, of levels between 0 and 1.
        frames: of a patch, as the tower reads it.
        pixels: of a frame of a patch.

    Source: transformers `rescale` and `normalize` (image_transforms), in their order.
    """
    groups, num_patches, width = levels.shape
    channels = statistics.shape[-1]
    spec = jax.P(*jax.typeof(levels).sharding.spec[:2])
    shape = (groups, num_patches, channels, width // (channels * pixels), pixels)
    x = jax.lax.reshape(levels, shape, out_sharding=jax.P(*spec, None, None, None))
    mean, std = (statistics[:, None, index, :, None, None] for index in range(2))
    x = (x.astype(jnp.float32) / 255 - mean) / std
    shape = (*shape[:3], frames, pixels)
    x = jnp.broadcast_to(x, shape)
    return jax.lax.reshape(
        x, (groups, num_patches, channels * frames * pixels), out_sharding=jax.P(*spec, None)
    )
