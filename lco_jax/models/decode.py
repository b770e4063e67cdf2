"""The decoder one token at a time, with keys and values kept in a fixed number of slots."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lco_jax.models.text import Context, KeyValue, Layer, Media, TextModel
from lco_jax.nn.stack import scan_layers


class Cache(NamedTuple):
    """Keys and values of every layer."""

    slots: KeyValue
    """Of the rows, by layer, row and slot: `L B T K H`."""
    preamble: KeyValue | None
    """Of the preamble that all rows share: `L 1 P K H`."""


def prefill(
    model: TextModel,
    tokens: Int[Array, "B S"],
    positions: Int[Array, "B S 3"],
    segments: Int[Array, "B S"],
    *,
    preamble: Int[Array, "P"],
    media: Media | None,
    num_free: int,
) -> tuple[Float[Array, "B S D"], Cache]:
    """States before the final norm, and a cache with `num_free` slots after those of the rows."""
    inputs = model.begin(tokens, positions, segments, preamble, media)
    (x, _), (rows, shared) = scan_layers(
        inputs.run_layer, model.layers, inputs.carry, num_layers=model.config.num_layers
    )
    free = ((0, 0), (0, 0), (0, num_free), (0, 0), (0, 0))
    return x, Cache(jax.tree.map(lambda kept: jnp.pad(kept, free), rows), shared)


def extend(
    model: TextModel,
    tokens: Int[Array, "B 1"],
    positions: Int[Array, "B 1 3"],
    visible: Bool[Array, "B T"],
    place: Int[Array, ""],
    cache: Cache,
) -> tuple[Float[Array, "B 1 D"], Cache]:
    """States of one more token of each row, before the final norm, and the cache that holds it.

    Args:
        visible: the slots that the tokens see, their own among them.
        place: the slot that they take.
    """
    rotation = model.rotation(positions)
    mask = visible[:, None, :]

    def run(x: Float[Array, "B 1 D"], xs: tuple[Layer, Cache]):
        layer, own = xs
        return layer(x, Context(rotation, mask, preamble=own.preamble, past=(own.slots, place)))

    x = model.embed(tokens).astype(model.dtype)
    x, slots = jax.lax.scan(run, x, (model.layers, cache))
    return x, Cache(slots, cache.preamble)
