"""How every anchor meets all candidates of the global batch: gathered, in chunks, or in a ring.

All functions here run on the arrays of one data shard, inside `shard_map` over the batch axes.
With n shards, B candidates of width D and k chunks, a device holds at a time

    gathered   B D values and B / n × B cosines
    chunked    B D / k values and B / n × B / k cosines
    ring       2 B D / n values and B / n × B / n cosines

and sends and receives B D values forward and B D backward in all three (the ring, whose second
lap carries vectors and their gradients, 2 B D backward).
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from lco_jax.config import Contrastive
from lco_jax.nn.linear import dot
from lco_jax.runtime.axes import BATCH_AXES

Exchange = Literal["gathered", "ring"]

_NEVER = jnp.finfo(jnp.float32).min
_GATHERED_BYTES = 2**29
"""Up to here a replica of the candidates and their cosines is worth its shorter program; with width
3584 this is reached at some 16,000 triplets."""


class Anchors(NamedTuple):
    """The queries of a shard and what decides which candidates they skip."""

    vectors: Float[Array, "I D"]
    target_cosine: Float[Array, " I"]
    place: Int32[Array, " I"]
    """Of the example in the global batch; its target is the candidate with the same place."""
    own_hashes: Int32[Array, "2 I 2"]
    """Content of the anchor and of its positive."""


class Block(NamedTuple):
    """Some of the candidates."""

    vectors: Float[Array, "M D"]
    tags: Int32[Array, "M 4"]
    """Place of the example whose target this is (-1: nobody's), 1 if valid, content hash."""


class Stats(NamedTuple):
    """What an anchor has seen of the candidates so far."""

    highest: Float[Array, " I"]
    sum_exp: Float[Array, " I"]
    best_other: Float[Array, " I"]
    sum_negative_cosine: Float[Array, " I"]
    num_negatives: Float[Array, " I"]

    @property
    def log_sum_exp(self) -> Float[Array, " I"]:
        """Of the logits of all candidates met."""
        return jnp.log(self.sum_exp) + self.highest


def choose_exchange(
    num_anchors: int, num_candidates: int, width: int, num_shards: int, logit_chunks: int
) -> Exchange:
    """Gathered while what that takes on a device is small; the ring above.

    The counts are of the global batch.
    """
    block = num_candidates / logit_chunks
    gathered_bytes = 4 * block * (width + num_anchors / num_shards)
    return "ring" if num_shards > 1 and gathered_bytes > _GATHERED_BYTES else "gathered"


def meet_gathered(anchors: Anchors, block: Block, config: Contrastive, chunks: int) -> Stats:
    """Candidates are replicated on every device, one of `chunks` pieces of each shard at a time."""

    def visit(stats: Stats, piece: Block) -> tuple[Stats, None]:
        everywhere = Block(*(jax.lax.all_gather(x, BATCH_AXES, tiled=True) for x in piece))
        return _meet(anchors, everywhere, stats, config), None

    start = _nothing_seen(anchors)
    if chunks == 1:
        return visit(start, block)[0]
    pieces = Block(_in_pieces(block.vectors, chunks, 0), _in_pieces(block.tags, chunks, -1))
    # A piece is gathered again for the backward pass instead of being kept.
    return jax.lax.scan(jax.checkpoint(visit, prevent_cse=False), start, pieces)[0]


def meet_in_ring(anchors: Anchors, block: Block, config: Contrastive, num_shards: int) -> Stats:
    """Blocks of candidates travel from shard to shard until they have met all anchors.

    The backward pass sends them round again, with their gradients as luggage. So nothing of
    another shard is ever kept.
    """
    vectors, *about = anchors
    return _ring(config, num_shards, vectors, block.vectors, tuple(about), block.tags)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring(config, num_shards, query, vectors, about, tags) -> Stats:
    anchors = Anchors(query, *about)

    def visit(carry: tuple[Stats, Block], _) -> tuple[tuple[Stats, Block], None]:
        stats, block = carry
        coming = _pass_on(block, num_shards)
        return (_meet(anchors, block, stats, config), coming), None

    carry = (_nothing_seen(anchors), Block(vectors, tags))
    (stats, last), _ = jax.lax.scan(visit, carry, length=num_shards - 1)
    return _meet(anchors, last, stats, config)


def _ring_forward(config, num_shards, query, vectors, about, tags):
    stats = _ring(config, num_shards, query, vectors, about, tags)
    return stats, (query, vectors, about, tags, stats.highest)


def _ring_backward(config, num_shards, saved, cotangent: Stats):
    query, vectors, about, tags, highest = saved
    anchors = Anchors(query, *about)
    # sum_exp = exp(log_sum_exp - highest), and `highest` has no gradient of its own.
    scale = cotangent.sum_exp / config.temperature

    def visit(carry, _):
        block, grad_vectors, grad_query = carry
        cosine, kept, _ = _compare(anchors, block, config)
        weights = jnp.where(kept, jnp.exp(cosine / config.temperature - highest[:, None]), 0)
        weights *= scale[:, None]
        grad_query += dot("IM,MD->ID", weights, block.vectors)
        grad_vectors += dot("IM,ID->MD", weights, query)
        return (*_pass_on((block, grad_vectors), num_shards), grad_query), None

    carry = (Block(vectors, tags), 0 * vectors, 0 * query)
    (_, grad_vectors, grad_query), _ = jax.lax.scan(visit, carry, length=num_shards)
    return grad_query, grad_vectors, None, None


_ring.defvjp(_ring_forward, _ring_backward)


def _pass_on(tree, num_shards: int):
    """What the shard before has."""
    ring = [(shard, (shard + 1) % num_shards) for shard in range(num_shards)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, BATCH_AXES, ring), tree)


def _nothing_seen(anchors: Anchors) -> Stats:
    zero = 0 * anchors.target_cosine
    return jax.lax.stop_gradient(Stats(zero + _NEVER, zero, zero + _NEVER, zero, zero))


def _compare(
    anchors: Anchors, block: Block, config: Contrastive
) -> tuple[Float[Array, "I M"], Bool[Array, "I M"], Bool[Array, "I M"]]:
    """Cosines, which of them count, and which are of the anchors' targets."""
    cosine = dot("ID,MD->IM", anchors.vectors, block.vectors)
    place, valid, hashes = block.tags[:, 0], block.tags[:, 1] > 0, block.tags[:, 2:]
    is_target = anchors.place[:, None] == place
    excluded = jnp.broadcast_to(~valid, cosine.shape)
    if config.mask_duplicates:
        for own in anchors.own_hashes:
            excluded |= jnp.all(own[:, None] == hashes, axis=-1)
    if config.false_negative_margin is not None:
        threshold = anchors.target_cosine[:, None] + config.false_negative_margin
        excluded |= jax.lax.stop_gradient(cosine > threshold)
    return cosine, is_target | ~excluded, is_target


def _meet(anchors: Anchors, block: Block, stats: Stats, config: Contrastive) -> Stats:
    cosine, kept, is_target = _compare(anchors, block, config)
    logits = jnp.where(kept, cosine / config.temperature, _NEVER)
    highest = jnp.maximum(stats.highest, jax.lax.stop_gradient(logits.max(-1)))
    exps = jnp.where(kept, jnp.exp(logits - highest[:, None]), 0)
    negative = kept & ~is_target
    others = jax.lax.stop_gradient(jnp.where(negative, cosine, 0))
    best_other = jax.lax.stop_gradient(jnp.where(negative, logits, _NEVER).max(-1))
    return Stats(
        highest,
        stats.sum_exp * jnp.exp(stats.highest - highest) + exps.sum(-1),
        jnp.maximum(stats.best_other, best_other),
        stats.sum_negative_cosine + others.sum(-1),
        stats.num_negatives + negative.sum(-1),
    )


def _in_pieces(x: Array, pieces: int, fill: int) -> Array:
    """Cut the leading dimension into equal pieces, the last ones padded (and so invalid)."""
    padding = -x.shape[0] % pieces
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    return x.reshape(pieces, -1, *x.shape[1:])
