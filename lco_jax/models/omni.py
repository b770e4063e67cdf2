"""Towers and decoder: Qwen2.5-Omni, models without audio tower, and text models (no tower)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lco_jax.config import Lora, Tower
from lco_jax.models.audio import AudioTower
from lco_jax.models.config import ModelConfig
from lco_jax.models.deep import DeepTower
from lco_jax.models.deep_config import DeepConfig
from lco_jax.models.pixels import normalised
from lco_jax.models.text import TextModel
from lco_jax.models.tile_config import TileConfig
from lco_jax.models.tiles import TileTower
from lco_jax.models.tower_config import VisionConfig
from lco_jax.models.vision import VisionTower
from lco_jax.nn.stack import Remat

_VISION = {VisionConfig: VisionTower, DeepConfig: DeepTower, TileConfig: TileTower}
"""The vision tower by the class of its sizes."""


class OmniModel(TextModel):
    """The decoder, and the towers whose features take the places of tokens.

    Source: transformers Qwen2_5_VLModel, Qwen3VLModel, LlavaNextModel, and
    Qwen2_5OmniThinkerForConditionalGeneration.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        towers: Sequence[Tower] = (),
        lora: Lora | None = None,
        with_head: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Random weights of `dtype`, which is that of the activations, too."""
        super().__init__(config.text, lora=lora, with_head=with_head, dtype=dtype, rngs=rngs)
        self.vision = nnx.data(None)
        if "vision" in towers:
            self.vision = _VISION[type(config.vision)](config.vision, dtype=dtype, rngs=rngs)
        self.audio = nnx.data(None)
        if "audio" in towers:
            self.audio = AudioTower(config.audio, dtype=dtype, rngs=rngs)

    def features(
        self,
        vision: Sequence[Array] | None,
        audio: Sequence[Array] | None,
        known: Float[Array, "G X E"] | None = None,
        *,
        remat: Remat = "none",
    ) -> Float[Array, "G X E"]:
        """What takes the places of media tokens: features of patches, of audio, known ones. They
        are of the width of the decoder, or have behind that what is added after its first layers.

        Args:
            vision: patches in bytes and their statistics (see `pixels.normalised`), and the other
                arguments of the vision tower (None: no images; in their place, not its argument).
            audio: the arguments of the audio tower (None: no audio).
            known: features that no tower need compute.
            remat: what the towers recompute if they train.
        """
        parts = []
        if vision is not None:
            levels, statistics, *layout = vision
            sizes = self.vision.config
            pixels = sizes.patch_px**2
            patches = normalised(levels, statistics, sizes.frames_per_patch, pixels)
            layout = [array for array in layout if array is not None]
            parts.append(self.vision(patches, *layout, remat=remat))
        if audio is not None:
            features = self.audio(*audio, remat=remat)
            groups, chunks, tokens, width = features.shape
            spec = jax.typeof(features).sharding.spec
            parts.append(
                jax.lax.reshape(
                    features,
                    (groups, chunks * tokens, width),
                    out_sharding=jax.P(spec[0], None, None),
                )
            )
        if known is not None:
            parts.append(known.astype(self.dtype))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def available_towers(config: ModelConfig) -> tuple[Tower, ...]:
    """The towers that a checkpoint has."""
    return tuple(name for name in ("vision", "audio") if getattr(config, name) is not None)
