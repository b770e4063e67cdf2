"""Next-token cross-entropy, a block of tokens at a time."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lco_jax.axes import BATCH_AXES


class TokenSums(NamedTuple):
    """Sums over target tokens."""

    loss: Float[Array, ""]
    """Of the negative log-likelihoods, in nats."""
    correct: Float[Array, ""]
    """Of the targets that are more likely than any other token."""


def next_token_sums(
    hidden: Float[Array, "B S D"],
    targets: Int[Array, "B S"],
    logits_fn: Callable[[Float[Array, "B S D"]], Float[Array, "B S V"]],
    *,
    head_tokens: int,
) -> TokenSums:
    """Cross-entropy of the targets, summed in float32; their logits exist for one block at a time
    and are computed again for the gradient.

    Args:
        hidden: states after the final norm.
        targets: the token that follows each; -1 where none is learned.
        logits_fn: logits in float32.
        head_tokens: tokens of a block on each device, at most (but one of each row).
    """
    length = hidden.shape[1]
    block = _block_length(hidden, head_tokens)

    def add(sums: tuple, xs: tuple) -> tuple[tuple, None]:
        hidden, targets = xs
        logits = logits_fn(hidden)
        found = jnp.arange(logits.shape[-1]) == targets[..., None]
        highest = jax.lax.stop_gradient(logits.max(-1))
        log_total = highest + jnp.log(jnp.exp(logits - highest[..., None]).sum(-1))
        target = jnp.where(found, logits, 0).sum(-1)
        learned = targets >= 0
        loss = jnp.where(learned, log_total - target, 0).sum(-1)
        correct = (learned & (target >= highest)).astype(jnp.float32).sum(-1)
        return (sums[0] + loss, sums[1] + correct), None

    start = (jnp.zeros_like(targets[:, 0], jnp.float32),) * 2
    if block == length:
        sums, _ = add(start, (hidden, targets))
    else:
        blocks = tuple(_in_blocks(x, block) for x in (hidden, targets))
        sums, _ = jax.lax.scan(jax.checkpoint(add, prevent_cse=False), start, blocks)
    loss, correct = (part.sum() for part in sums)
    return TokenSums(loss, jax.lax.stop_gradient(correct))


def _block_length(hidden: Float[Array, "B S D"], head_tokens: int) -> int:
    """The largest divisor of the row length with which a device's rows have few enough tokens."""
    rows, length, _ = hidden.shape
    mesh = jax.typeof(hidden).sharding.mesh
    rows_of_device = rows // math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    most = max(1, head_tokens // max(1, rows_of_device))
    return max(size for size in range(1, min(most, length) + 1) if length % size == 0)


def _in_blocks(x: Array, block: int) -> Array:
    rows, length, *rest = x.shape
    spec = jax.typeof(x).sharding.spec
    shape = (rows, length // block, block, *rest)
    blocks = jax.lax.reshape(x, shape, out_sharding=jax.P(spec[0], None, *spec[1:]))
    return jnp.moveaxis(blocks, 1, 0)
