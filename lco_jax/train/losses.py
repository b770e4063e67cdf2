"""The contrastive loss on global arrays: no rank and no world size occurs in it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

from lco_jax.config import Contrastive
from lco_jax.nn.norm import l2_normalize

_NEVER = jnp.finfo(jnp.float32).min


class _Scan(NamedTuple):
    """What one pass over the candidates leaves for every anchor."""

    highest: Float[Array, "C I"]
    sum_exp: Float[Array, "C I"]
    best_other: Float[Array, "C I"]
    sum_negative_cosine: Float[Array, "C I"]
    num_negatives: Float[Array, "C I"]


def contrastive_loss(
    pooled: Float[Array, "C J I D"],
    valid: Bool[Array, "C J I"],
    content: UInt32[Array, "C J I 2"],
    config: Contrastive,
    *,
    logit_chunks: int = 1,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean InfoNCE of all anchors against all positives and negatives of the global batch.

    Args:
        pooled: last-token states, by encode chunk, role (anchor, positive, negatives) and example.
        valid: False where an example has no such negative.
        content: hash of each item, for masking duplicates.
        logit_chunks: blocks of candidates that are compared at a time; changes no result.

    Returns:
        The loss and its metrics: accuracy@1, mean cosines, negatives per anchor.

    Source: LCO-Emb released trainers; candidates are all positives, then all negatives.
    """
    width = pooled.shape[-1]
    losses, metrics = [], {}
    for dim in (*config.matryoshka_dims, width):
        if not 0 < dim <= width:
            raise ValueError(f"matryoshka_dims has {dim}; the embedding has {width} dimensions")
        unit = l2_normalize(pooled[..., :dim])
        anchor, positive = unit[:, 0], unit[:, 1]
        loss, metrics = _info_nce(
            anchor, positive, unit[:, 1:], valid[:, 1:], content, 1, config, logit_chunks
        )
        if config.symmetric:
            backward, _ = _info_nce(
                positive, anchor, unit[:, :1], valid[:, :1], content, 0, config, logit_chunks
            )
            loss = (loss + backward) / 2
        losses.append(loss)
    return sum(losses) / len(losses), metrics


def _info_nce(
    query: Float[Array, "C I D"],
    target: Float[Array, "C I D"],
    candidates: Float[Array, "C J I D"],
    valid: Bool[Array, "C J I"],
    content: UInt32[Array, "C R I 2"],
    first_role: int,
    config: Contrastive,
    logit_chunks: int,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Classify each query's target, candidate `c * I + i`, among all candidates."""
    num_chunks, num_queries = query.shape[:2]
    labels = jnp.arange(num_chunks * num_queries, dtype=jnp.int32).reshape(num_chunks, -1)
    # Queries stay where they are; all candidates (and their hashes) go to every device.
    num_roles = candidates.shape[1]
    hashes = content[:, first_role : first_role + num_roles]
    index = jnp.arange(num_chunks * num_queries * num_roles, dtype=jnp.int32)
    blocks = [
        *(_in_blocks(_everywhere(part), logit_chunks, 0) for part in (candidates, valid, hashes)),
        _in_blocks(index, logit_chunks, -1),  # padding is nobody's label
    ]

    target_cosine = jnp.sum(query * target, axis=-1)
    own_hashes = (content[:, 0], content[:, 1])

    def compare(carry: _Scan, block) -> tuple[_Scan, None]:
        vectors, is_valid, block_hashes, position = block
        cosine = jnp.einsum("CID,MD->CIM", query, vectors, preferred_element_type=jnp.float32)
        is_label = labels[:, :, None] == position
        excluded = ~is_valid
        if config.mask_duplicates:
            for own in own_hashes:
                excluded |= jnp.all(own[:, :, None] == block_hashes, axis=-1)
        if config.false_negative_margin is not None:
            threshold = target_cosine[:, :, None] + config.false_negative_margin
            excluded |= jax.lax.stop_gradient(cosine > threshold)
        kept = is_label | ~excluded
        logits = jnp.where(kept, cosine / config.temperature, _NEVER)
        negative = kept & ~is_label
        highest = jnp.maximum(carry.highest, jax.lax.stop_gradient(logits.max(-1)))
        shrink = jnp.exp(carry.highest - highest)
        exps = jnp.where(kept, jnp.exp(logits - highest[:, :, None]), 0)
        return _Scan(
            highest,
            carry.sum_exp * shrink + exps.sum(-1),
            jnp.maximum(carry.best_other, jnp.where(negative, logits, _NEVER).max(-1)),
            carry.sum_negative_cosine + jnp.where(negative, cosine, 0).sum(-1),
            carry.num_negatives + negative.sum(-1),
        ), None

    zero = jnp.zeros_like(target_cosine)
    start = _Scan(zero + _NEVER, zero, zero + _NEVER, zero, zero)
    if logit_chunks == 1:
        end, _ = compare(start, [block[0] for block in blocks])
    else:
        end, _ = jax.lax.scan(jax.checkpoint(compare, prevent_cse=False), start, blocks)
    target_logit = target_cosine / config.temperature
    losses = jnp.log(end.sum_exp) + end.highest - target_logit
    metrics = {
        "accuracy@1": jnp.mean((target_logit > end.best_other).astype(jnp.float32)),
        "positive_cosine": jnp.mean(target_cosine),
        "negative_cosine": jnp.sum(end.sum_negative_cosine) / jnp.sum(end.num_negatives),
        "negatives_per_anchor": jnp.mean(end.num_negatives),
    }
    return jnp.mean(losses), jax.lax.stop_gradient(metrics)


def _everywhere(x: Array) -> Array:
    """(C, J, I, ...) on every device as (J * C * I, ...): role-major, then example."""
    x = jnp.moveaxis(jax.reshard(x, jax.P()), 1, 0)
    return x.reshape(-1, *x.shape[3:])


def _in_blocks(x: Array, num_blocks: int, fill: int) -> Array:
    """Cut the leading dimension into equal blocks, the last one padded (and so invalid)."""
    padding = -x.shape[0] % num_blocks
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    return x.reshape(num_blocks, -1, *x.shape[1:])
