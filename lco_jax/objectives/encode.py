"""A chunk of a batch through the model: features of its media, last-token states of its items."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

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
    trains_layers: bool = False,
    flows: bool = False,
) -> tuple[Float[Array, "J I D"], Any]:
    """Last-token states of the items of one chunk (arrays without `C`), after the final norm.

    `features` are those of the chunk's media; `tap` may reduce each layer's states further: it
    gets the same pooled items. Unless weights of the layers train (`trains_layers`), the last one
    does for all other tokens only what the pooled ones attend to. `flows`: items may run on into
    the next row of their shard.
    """

    def pool(x: Shaped[Array, "B S *x"]) -> Shaped[Array, "J I *x"]:
        # Items never leave their shard: `pool` counts positions within the shard's rows.
        spec = jax.typeof(x).sharding.spec
        return jax.shard_map(
            lambda x, index: x.reshape(-1, *x.shape[2:])[index],
            in_specs=(spec, act_spec("J I")),
            out_specs=jax.P(*act_spec("J I"), *spec[2:]),
        )(x, chunk.pool)

    hidden, taps = model(
        chunk.tokens,
        chunk.positions,
        chunk.segments,
        preamble=preamble,
        media=None if features is None else (features, chunk.media.slots),
        dropout_key=dropout_key,
        remat=remat,
        tap=tap,
        pool=pool,
        skips=not trains_layers,
        flows=flows,
    )
    return model.final_norm(hidden).astype(jnp.float32), taps
