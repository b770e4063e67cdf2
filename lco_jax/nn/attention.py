"""Masked grouped-query attention over packed rows, with an optional prefix shared by all rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lco_jax.nn.splash import attend_long, splash_fits
from lco_jax.nn.stack import keep


class LongRows(NamedTuple):
    """Rows whose mask is never stored: a kernel works it out from their segments."""

    segments: Int[Array, "B S"]


Mask = Bool[Array, "B S S"] | LongRows


def row_mask(segments: Int[Array, "B S"], head_dim: int) -> Mask:
    """The causal mask of packed rows, in the form that suits the devices of the mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    on_tpu = device is not None and device.platform == "tpu"
    if on_tpu and splash_fits(segments.shape[1], head_dim):
        return LongRows(segments)
    return causal_mask(segments)


def causal_mask(segments: Int[Array, "B S"]) -> Bool[Array, "B S S"]:
    """Which keys a query sees: earlier positions of its own segment."""
    same = segments[:, :, None] == segments[:, None, :]
    order = jnp.arange(segments.shape[1])
    return same & (order[:, None] >= order[None, :])


def attend(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Mask,
    prefix: tuple[Float[Array, "1 P K H"], Float[Array, "1 P K H"]] | None = None,
) -> Float[Array, "B S N H"]:
    """Softmax attention; the keys and values of `prefix` are visible to every query of every row.

    The prefix is one set of keys for the whole batch: its scores are one matrix product and are
    normalised together with a row's own, so the result is that of rows which begin
    with the prefix.
    """
    if isinstance(mask, LongRows):
        return attend_long(query, key, value, mask.segments, prefix)
    rows, length, num_heads, head_dim = query.shape
    num_kv_heads = key.shape[2]
    spec = jax.typeof(query).sharding.spec
    grouped = (rows, length, num_kv_heads, num_heads // num_kv_heads, head_dim)
    query = jax.lax.reshape(query, grouped, out_sharding=jax.P(*spec[:3], None, None))

    scale = head_dim**-0.5
    scores = scale * _dot("BSKGH,BTKH->BKGST", query, key)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    highest = scores.max(axis=-1, keepdims=True)
    if prefix is not None:
        prefix_key, prefix_value = (part[0] for part in prefix)
        prefix_scores = scale * _dot("BSKGH,PKH->BKGSP", query, prefix_key)
        highest = jnp.maximum(highest, prefix_scores.max(axis=-1, keepdims=True))
    highest = jax.lax.stop_gradient(highest)

    # The sum divides the small context instead of the large weights.
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1)
    context = _dot("BKGST,BTKH->BSKGH", weights.astype(value.dtype), value)
    if prefix is not None:
        prefix_weights = jnp.exp(prefix_scores - highest)
        total += prefix_weights.sum(axis=-1)
        context += _dot("BKGSP,PKH->BSKGH", prefix_weights.astype(value.dtype), prefix_value)
    context = keep(context / jnp.einsum("BKGS->BSKG", total)[..., None])
    return jax.lax.reshape(
        context.astype(value.dtype), (rows, length, num_heads, head_dim), out_sharding=spec
    )


def _dot(equation: str, x: Array, y: Array) -> Float[Array, "*out"]:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
