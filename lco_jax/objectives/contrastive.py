"""The contrastive objective on global arrays: no rank and no world size occurs in it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

from lco_jax.config import Contrastive, Memory
from lco_jax.data.pack.batch import Batch
from lco_jax.models.build import Params, trains_weights_of_layers
from lco_jax.nn.norm import l2_normalize
from lco_jax.objectives.candidates import (
    Anchors,
    Block,
    Exchange,
    choose_exchange,
    meet_gathered,
    meet_in_ring,
)
from lco_jax.objectives.encode import encode, media_features
from lco_jax.runtime.axes import BATCH_AXES, act_spec


def contrastive_objective(
    graph: nnx.GraphDef, objective: Contrastive, memory: Memory
) -> Callable[..., tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]:
    """The function `(trainable, frozen, dropout key, batch, preamble) -> (loss, metrics)`."""

    def loss_fn(
        trainable: Params, frozen: Params, key: PRNGKeyArray, batch: Batch, preamble: Array
    ):
        trains_layers = trains_weights_of_layers(trainable)
        towers_train = bool(trainable.keys() & {"vision", "audio"})

        def run_towers(trainable: Params, chunk: Batch) -> Float[Array, "G X D"] | None:
            return media_features(nnx.merge(graph, trainable, frozen), chunk, memory.remat)

        def encode_chunk(trainable: Params, chunk: Batch, features) -> Float[Array, "J I D"]:
            model = nnx.merge(graph, trainable, frozen)
            if towers_train:
                features = run_towers(trainable, chunk)
            return encode(
                model,
                chunk,
                preamble,
                features,
                dropout_key=key,
                remat=memory.remat,
                trains_layers=trains_layers,
            )[0]

        def frozen_features(chunk: Batch) -> Float[Array, "G X D"] | None:
            return None if towers_train else run_towers(trainable, chunk)

        if memory.encode_chunks == 1:
            chunk = jax.tree.map(lambda x: x[0], batch)
            pooled = encode_chunk(trainable, chunk, frozen_features(chunk))[None]
        else:
            # Gradient cache: only the pooled states of a chunk are kept, its activations are
            # computed again when the gradient of the loss reaches it. The features of frozen
            # towers are kept, too, so that no tower runs twice.
            again = jax.checkpoint(encode_chunk, prevent_cse=False)

            def step(_, chunk: Batch) -> tuple[None, Float[Array, "J I D"]]:
                return None, again(trainable, chunk, frozen_features(chunk))

            _, pooled = jax.lax.scan(step, None, batch)
        return contrastive_loss(pooled, batch.valid, batch.content, objective, memory)

    return loss_fn


def contrastive_loss(
    pooled: Float[Array, "C J I D"],
    valid: Bool[Array, "C J I"],
    content: UInt32[Array, "C J I 2"],
    config: Contrastive,
    memory: Memory | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean InfoNCE of all anchors against all positives and negatives of the global batch.

    Args:
        pooled: last-token states, by encode chunk, role (anchor, positive, negatives) and example.
        valid: False where an example has no such negative, and for all roles of an idle slot.
        content: hash of each item, for masking duplicates.
        memory: how the candidates are brought to the anchors; changes no result.

    Returns:
        The loss and its metrics: accuracy@1, mean cosines, negatives per anchor.

    Source: LCO-Emb released trainers; candidates are all positives, then all negatives.
    """
    memory = memory or Memory()
    width = pooled.shape[-1]
    losses, metrics = [], {}
    for dim in (*config.matryoshka_dims, width):
        if not 0 < dim <= width:
            raise ValueError(f"matryoshka_dims has {dim}; the embedding has {width} dimensions")
        unit = l2_normalize(pooled[..., :dim])
        loss, metrics = _info_nce(unit, valid, content, (0, 1), slice(1, None), config, memory)
        if config.symmetric:
            backward, _ = _info_nce(unit, valid, content, (1, 0), slice(0, 1), config, memory)
            loss = (loss + backward) / 2
        losses.append(loss)
    return sum(losses) / len(losses), metrics


def exchange_of(memory: Memory, pooled_shape: tuple[int, ...], num_shards: int) -> Exchange:
    """How the candidates of pooled states `C J I D` meet the anchors."""
    chunks, roles, examples, width = pooled_shape
    if memory.candidates != "auto":
        return memory.candidates
    anchors = chunks * examples
    return choose_exchange(anchors, anchors * (roles - 1), width, num_shards, memory.logit_chunks)


def _info_nce(
    unit: Float[Array, "C J I D"],
    valid: Bool[Array, "C J I"],
    content: UInt32[Array, "C J I 2"],
    pair: tuple[int, int],
    candidate_roles: slice,
    config: Contrastive,
    memory: Memory,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Classify the second role of each example's `pair`, given the first, among all candidates."""
    chunks, _, examples, _ = unit.shape
    mesh = jax.sharding.get_abstract_mesh()
    num_shards = mesh.shape["data"] * mesh.shape["fsdp"]
    exchange = exchange_of(memory, unit.shape, num_shards)
    places = jnp.arange(chunks * examples, dtype=jnp.int32).reshape(chunks, examples)

    def on_shard(unit, valid, content, places) -> dict[str, Float[Array, ""]]:
        anchors, block, present = _of_shard(unit, valid, content, places, pair, candidate_roles)
        if exchange == "ring":
            stats = meet_in_ring(anchors, block, config, num_shards)
        else:
            stats = meet_gathered(anchors, block, config, memory.logit_chunks)
        target_logit = anchors.target_cosine / config.temperature
        sums = {
            "loss": stats.log_sum_exp - target_logit,
            "accuracy@1": (target_logit > stats.best_other).astype(jnp.float32),
            "positive_cosine": anchors.target_cosine,
            "negative_cosine": stats.sum_negative_cosine,
            "negatives_per_anchor": stats.num_negatives,
            "anchors": jnp.ones_like(target_logit),
        }
        of_present = jnp.stack([jnp.where(present, x, 0).sum() for x in sums.values()])
        return dict(zip(sums, jax.lax.psum(of_present, BATCH_AXES), strict=True))

    letters = ("C J I D", "C J I", "C J I X", "C I")
    arrays = (unit, valid, content, places)
    sums = jax.shard_map(on_shard, in_specs=tuple(map(act_spec, letters)), out_specs=jax.P())(
        *(jax.reshard(x, act_spec(spec)) for x, spec in zip(arrays, letters, strict=True))
    )
    count = sums.pop("anchors")
    negatives = jnp.maximum(sums["negatives_per_anchor"], 1)
    means = {name: total / count for name, total in sums.items()}
    means["negative_cosine"] = sums["negative_cosine"] / negatives
    return means.pop("loss"), jax.lax.stop_gradient(means)


def _of_shard(unit, valid, content, places, pair, candidate_roles):
    """The anchors and candidates of a shard, flattened, and which anchors are real."""
    query, target = (unit[:, role].reshape(-1, unit.shape[-1]) for role in pair)
    hashes = jax.lax.bitcast_convert_type(content, jnp.int32)
    anchors = Anchors(
        vectors=query,
        target_cosine=jnp.sum(query * target, axis=-1),
        place=places.reshape(-1),
        own_hashes=jnp.stack([hashes[:, role].reshape(-1, 2) for role in (0, 1)]),
    )
    is_target = jnp.arange(unit.shape[1])[candidate_roles, None] == pair[1]
    usable = valid[:, candidate_roles]
    owner = jnp.where(is_target, places[:, None], -1)
    tags = jnp.stack([owner, usable.astype(jnp.int32)], axis=-1)
    tags = jnp.concatenate([tags, hashes[:, candidate_roles]], axis=-1)
    candidates = unit[:, candidate_roles]
    block = Block(candidates.reshape(-1, unit.shape[-1]), tags.reshape(-1, 4))
    return anchors, block, valid[:, 0].reshape(-1)
