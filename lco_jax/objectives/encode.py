"""A chunk of a batch through the model: features of its media, last-token states of its items."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from lco_jax.data.pack.batch import Batch
from lco_jax.models.omni import OmniModel
from lco_jax.models.text import Tap
from lco_jax.nn.stack import Remat
from lco_jax.runtime.axes import act_spec


def media_features(
    model: OmniModel, chunk: Batch, remat: Remat = "none"
) -> Float[Array, "G X D"] | None:
    """What the towers make of the media of one chunk (None: it has none)."""
    if chunk.media is None:
        return None
    media = chunk.media
    return model.features(media.vision, media.audio, media.known, remat=remat)


def encode(
    model: OmniModel,
    chunk: Batch,
    preamble: Int[Array, "P"],
    features: Float[Array, "G X D"] | None,
    *,
    dropout_key: PRNGKeyArray | None = None,
    remat: Remat = "none",
    tap: Tap | None = None,
) -> tuple[Float[Array, "J I D"], Any]:
    """Last-token states of the items of one chunk (arrays without `C`), after the final norm.

    `features` are those of the chunk's media; `tap` may reduce each layer's states further: it
    gets the same pooled items.
    """

    def pool(hidden: Float[Array, "B S D"]) -> Float[Array, "J I D"]:
        # Items never leave their shard: `pool` counts positions within the shard's rows.
        return jax.shard_map(
            lambda h, index: h.reshape(-1, h.shape[-1])[index],
            in_specs=(act_spec("B S D"), act_spec("J I")),
            out_specs=act_spec("J I D"),
        )(hidden, chunk.pool)

    hidden, taps = model(
        chunk.tokens,
        chunk.positions,
        chunk.segments,
        preamble=preamble,
        media=None if features is None else (features, chunk.media.slots),
        dropout_key=dropout_key,
        remat=remat,
        tap=(lambda x: tap(pool(x))) if tap else None,
    )
    return model.final_norm(pool(hidden)).astype(jnp.float32), taps
