"""Attention over long packed rows on TPUs: JAX's splash kernel, with a shared preamble beside it.

The kernel tells packed items apart by segment numbers, which it compares for equality, so it cannot
express keys that every segment sees. The preamble is therefore attended by a matrix product, and
both parts are merged by their log-sum-exps. The backward kernels only need the log-sum-exp and the
output that belong to the whole row of scores: with the merged ones their gradients are exact.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float, Int

from lco_jax.nn.linear import dot
from lco_jax.nn.stack import keep
from lco_jax.runtime.axes import act_spec

_BLOCKS = (512, 256, 128)
SHORTEST_ROW = 512
"""Shorter rows are faster as plain products: their scores are few, and blocks are mostly masked."""
_NARROWEST_HEAD = 64
"""Half of the lanes of a TPU; the rest of them would compute nothing."""

Preamble = tuple[Float[Array, "1 P K H"], Float[Array, "1 P K H"]]


def splash_fits(length: int, head_dim: int) -> bool:
    """Whether the kernel takes rows of this length, and is worth it."""
    fills_lanes = head_dim >= _NARROWEST_HEAD and head_dim % 16 == 0
    return length >= SHORTEST_ROW and length % _BLOCKS[-1] == 0 and fills_lanes


def attend_long(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    segments: Int[Array, "B S"],
    preamble: Preamble | None = None,
    *,
    causal: bool = True,
    interpret: bool = False,
) -> Float[Array, "B S N H"]:
    """What `lco_jax.nn.attention.attend` gives with the mask of `segments`, in which a query sees
    its own segment (`causal`: no later position of it).
    """
    heads, one_set = act_spec("B S N H"), jax.P(None, None, "tensor", None)
    keys = act_spec("B S K H")
    # The kernel does not say how its results vary over the mesh, so this is not checked.
    return jax.shard_map(
        functools.partial(_attend, causal, interpret),
        in_specs=(heads, keys, keys, act_spec("B S"), None if preamble is None else one_set),
        out_specs=heads,
        check_vma=False,
    )(query, key, value, segments, preamble)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(causal, interpret, query, key, value, segments, preamble) -> Float[Array, "B S N H"]:
    if preamble is None:  # nobody asks for the log-sum-exps, which take more than the context
        scaled = query * query.shape[-1] ** -0.5
        return _heads_first(_rows(causal, interpret, False, scaled, key, value, segments))
    return _forward(causal, interpret, query, key, value, segments, preamble)[0]


def _rows(causal, interpret, with_log_sum, scaled, key, value, segments):
    """The context `B N S H` of each row, and on demand the log-sum-exps `B N S` of its scores."""
    kernel = _kernel(scaled.shape[1], scaled.shape[2], causal, interpret)
    static = {**kernel.kwargs, "save_residuals": with_log_sum}

    def row(query, key, value, segments):
        ids = splash.SegmentIds(segments, segments)
        return splash._splash_attention_forward(
            kernel.fwd_mask_info, query, key, value, ids, None, **static
        )

    return jax.vmap(row)(*map(_heads_first, (scaled, key, value)), segments)


def _forward(causal, interpret, query, key, value, segments, preamble):
    scaled = query * query.shape[-1] ** -0.5
    context, (log_sum,) = _rows(causal, interpret, True, scaled, key, value, segments)
    context = _heads_first(context)
    if preamble is not None:
        scores = _preamble_scores(scaled, preamble[0])
        total = jnp.logaddexp(log_sum, jax.nn.logsumexp(scores, axis=-1))
        weights = jnp.exp(scores - total[..., None])
        own = jnp.exp(log_sum - total).swapaxes(1, 2)[..., None]
        context = (own * context + _preamble_context(weights, preamble[1])).astype(value.dtype)
        log_sum = total
    context, log_sum = keep(context), keep(log_sum)
    return context, (query, key, value, segments, preamble, context, log_sum)


def _backward(causal, interpret, saved, cotangent):
    query, key, value, segments, preamble, context, log_sum = saved
    kernel = _kernel(query.shape[1], query.shape[2], causal, interpret)
    scale = query.shape[-1] ** -0.5
    scaled = query * scale

    def row(query, key, value, segments, context, log_sum, cotangent):
        ids = splash.SegmentIds(segments, segments)
        infos = (kernel.dq_mask_info, kernel.dkv_mask_info)
        residuals = (query, key, value, ids, None, context, log_sum, *infos)
        gradients = splash._splash_attention_bwd(
            **{**kernel.kwargs, "save_residuals": False}, res=residuals, do=cotangent
        )
        return gradients[3:6]

    parts = map(_heads_first, (scaled, key, value))
    outs = map(_heads_first, (context, cotangent))
    rows = (*parts, segments, next(outs), log_sum, next(outs))
    grad_query, grad_key, grad_value = map(_heads_first, jax.vmap(row)(*rows))
    grad_preamble = None
    if preamble is not None:
        preamble_grads, grad_preamble = _preamble_backward(
            scaled, preamble, context, log_sum, cotangent
        )
        grad_query = grad_query.astype(jnp.float32) + preamble_grads
    grad_query = (scale * grad_query).astype(query.dtype)
    return (
        grad_query,
        grad_key.astype(key.dtype),
        grad_value.astype(value.dtype),
        None,
        grad_preamble,
    )


_attend.defvjp(_forward, _backward)


def _preamble_backward(query, preamble, context, log_sum, cotangent):
    """Gradients of the scaled query and of the preamble, from the softmax over the whole row."""
    preamble_key, preamble_value = (part[0] for part in preamble)
    weights = jnp.exp(_preamble_scores(query, preamble[0]) - log_sum[..., None])
    grouped = _grouped(cotangent, preamble_key.shape[1])
    grad_weights = dot("BSKGH,PKH->BKGSP", grouped, preamble_value)
    grad_weights = grad_weights.reshape(weights.shape)
    inner = dot("BSNH,BSNH->BNS", context, cotangent)[..., None]
    grad_scores = weights * (grad_weights - inner)
    by_group = (weights.shape[0], preamble_key.shape[1], -1, *weights.shape[2:])
    grad_scores, weights = grad_scores.reshape(by_group), weights.reshape(by_group)
    grad_query = dot("BKGSP,PKH->BSKGH", grad_scores.astype(query.dtype), preamble_key)
    grad_key = dot("BKGSP,BSKGH->PKH", grad_scores, _grouped(query, preamble_key.shape[1]))
    grad_value = dot("BKGSP,BSKGH->PKH", weights, grouped)
    grads = (
        grad_key[None].astype(preamble_key.dtype),
        grad_value[None].astype(preamble_value.dtype),
    )
    return grad_query.reshape(query.shape), grads


def _preamble_scores(query, preamble_key) -> Float[Array, "B N S P"]:
    num_kv_heads = preamble_key.shape[2]
    scores = dot("BSKGH,PKH->BKGSP", _grouped(query, num_kv_heads), preamble_key[0])
    return scores.reshape(scores.shape[0], -1, *scores.shape[3:])


def _preamble_context(weights, preamble_value) -> Float[Array, "B S N H"]:
    rows, heads, length, _ = weights.shape
    grouped = weights.reshape(rows, preamble_value.shape[2], -1, *weights.shape[2:])
    context = dot("BKGSP,PKH->BSKGH", grouped.astype(preamble_value.dtype), preamble_value[0])
    return context.reshape(rows, length, heads, -1)


def _grouped(x: Float[Array, "B S N H"], num_kv_heads: int) -> Float[Array, "B S K G H"]:
    return x.reshape(*x.shape[:2], num_kv_heads, -1, x.shape[-1])


def _heads_first(x: Array) -> Array:
    return x.swapaxes(1, 2)


def _kernel(
    length: int, num_heads: int, causal: bool, interpret: bool
) -> splash.SplashAttentionKernel:
    block = next(size for size in _BLOCKS if length % size == 0)
    forward = {"block_q": block, "block_kv": block, "block_kv_compute": block}
    backward = {"block_q_dkv": block, "block_kv_dkv": block, "block_kv_dkv_compute": block}
    sizes = splash.BlockSizes(**forward, **backward, block_q_dq=block, block_kv_dq=block)
    # Either is computed block by block, never stored as a mask.
    kind = masks.CausalMask if causal else masks.FullMask
    mask = masks.MultiHeadMask([kind((length, length))] * num_heads)
    return splash.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )
