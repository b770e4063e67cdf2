"""Next-token cross-entropy, a block of tokens at a time."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lco_jax.runtime.axes import BATCH_AXES

LEARNED_BLOCK = "learned_block"
"""The named scope of what runs for blocks with a target only: plans know how many have one."""


class TokenSums(NamedTuple):
    """Sums over target tokens."""

    loss: Float[Array, ""]
    """Of the negative log-likelihoods, in nats."""
    correct: Float[Array, ""]
    """Of the targets that are more likely than any other token."""


LogitsFn = Callable[[Float[Array, "B S D"]], Float[Array, "B S V"]]


def next_token_sums(
    hidden: Float[Array, "B S D"],
    targets: Int[Array, "B S"],
    logits_fn: LogitsFn,
    *,
    head_tokens: int,
) -> TokenSums:
    """Cross-entropy of the targets, summed in float32; their logits exist for one block at a time
    and are computed again for the gradient. The targets of each row are moved to its front, and
    blocks without any are left out, but for the gradient of weights that are trained.

    Args:
        hidden: states after the final norm.
        targets: the token that follows each; -1 where none is learned.
        logits_fn: logits in float32; a pytree of the weights it uses.
        head_tokens: tokens of a block on each device, at most (but one of each row).
    """
    length = hidden.shape[1]
    block = _block_length(hidden, head_tokens)
    if block == length:
        loss, correct = _row_sums(logits_fn(hidden), targets)
    else:
        blocks = (_in_blocks(x, block) for x in _targets_first(hidden, targets))
        loss, correct = _sums_of_blocks(logits_fn, *blocks)
    return TokenSums(loss.sum(), jax.lax.stop_gradient(correct.sum()))


def _row_sums(
    logits: Float[Array, "B S V"], targets: Int[Array, "B S"]
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Losses of each row's targets, and how many are more likely than any other token."""
    found = jnp.arange(logits.shape[-1]) == targets[..., None]
    highest = jax.lax.stop_gradient(logits.max(-1))
    log_total = highest + jnp.log(jnp.exp(logits - highest[..., None]).sum(-1))
    target = jnp.where(found, logits, 0).sum(-1)
    learned = targets >= 0
    loss = jnp.where(learned, log_total - target, 0).sum(-1)
    correct = (learned & (target >= highest)).astype(jnp.float32).sum(-1)
    return loss, correct


@jax.custom_vjp
def _sums_of_blocks(
    logits_fn: LogitsFn, hidden: Float[Array, "K B S D"], targets: Int[Array, "K B S"]
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """`_row_sums` of all blocks, of which those without targets are left out.

    Its gradient is written out: the branches of a block would otherwise hand the weights on to the
    backward pass, a copy for each block.
    """

    def add(sums: tuple, xs: tuple) -> tuple[tuple, None]:
        hidden, targets = xs

        def with_block(sums: tuple) -> tuple:
            return jax.tree.map(jnp.add, sums, _row_sums(logits_fn(hidden), targets))

        with jax.named_scope(LEARNED_BLOCK):
            sums = jax.lax.cond((targets >= 0).any(), with_block, lambda sums: sums, sums)
        return sums, None

    start = (jnp.zeros_like(targets[0, :, 0], jnp.float32),) * 2
    return jax.lax.scan(add, start, (hidden, targets))[0]


def _forward(*arguments):
    return _sums_of_blocks(*arguments), arguments


def _backward(arguments: tuple, cotangents: tuple) -> tuple:
    logits_fn, hidden, targets = arguments

    def add(gradient: LogitsFn, xs: tuple) -> tuple[LogitsFn, Float[Array, "B S D"]]:
        hidden, targets = xs

        def with_block() -> tuple[Array, Array]:
            logits, pull_to_hidden = jax.vjp(logits_fn, hidden)
            _, pull_to_logits = jax.vjp(lambda logits: _row_sums(logits, targets)[0], logits)
            (of_logits,) = pull_to_logits(cotangents[0])
            return of_logits, *pull_to_hidden(of_logits)

        def without_block() -> tuple[Array, Array]:
            return jax.tree.map(jnp.zeros_like, jax.eval_shape(with_block))

        with jax.named_scope(LEARNED_BLOCK):
            of_logits, of_hidden = jax.lax.cond((targets >= 0).any(), with_block, without_block)
        # Of all blocks, so that devices add up their sums once and not in each branch; of frozen
        # weights the compiler leaves it out.
        _, pull_to_weights = jax.vjp(lambda fn: fn(hidden), logits_fn)
        return jax.tree.map(jnp.add, gradient, *pull_to_weights(of_logits)), of_hidden

    start = jax.tree.map(jnp.zeros_like, logits_fn)
    return *jax.lax.scan(add, start, (hidden, targets)), None


_sums_of_blocks.defvjp(_forward, _backward)


def _block_length(hidden: Float[Array, "B S D"], head_tokens: int) -> int:
    """The largest divisor of the row length with which a device's rows have few enough tokens."""
    rows, length, _ = hidden.shape
    mesh = jax.typeof(hidden).sharding.mesh
    rows_of_device = rows // math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    most = max(1, head_tokens // max(1, rows_of_device))
    return max(size for size in range(1, min(most, length) + 1) if length % size == 0)


def _targets_first(
    hidden: Float[Array, "B S D"], targets: Int[Array, "B S"]
) -> tuple[Float[Array, "B S D"], Int[Array, "B S"]]:
    order = jnp.argsort(targets < 0, axis=1, stable=True)
    return jax.vmap(lambda row, tokens, first: (row[first], tokens[first]))(hidden, targets, order)


def _in_blocks(x: Array, block: int) -> Array:
    rows, length, *rest = x.shape
    spec = jax.typeof(x).sharding.spec
    shape = (rows, length // block, block, *rest)
    blocks = jax.lax.reshape(x, shape, out_sharding=jax.P(spec[0], None, *spec[1:]))
    return jnp.moveaxis(blocks, 1, 0)
