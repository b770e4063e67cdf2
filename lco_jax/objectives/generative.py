"""The generative objective: next-token loss of responses, gradients added up over chunks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from lco_jax.config import Memory
from lco_jax.data.pack.batch import Batch
from lco_jax.models.build import Params
from lco_jax.objectives.encode import media_features
from lco_jax.objectives.next_token import TokenSums, next_token_sums

Metrics = dict[str, Float[Array, ""]]


def generative_objective(
    graph: nnx.GraphDef, memory: Memory
) -> Callable[..., tuple[Float[Array, ""], Metrics]]:
    """The function `(trainable, frozen, dropout key, batch, preamble) -> (loss, metrics)`, for
    batches of one chunk.
    """
    sums_fn = _chunk_sums(graph, memory)

    def loss_fn(
        trainable: Params, frozen: Params, key: PRNGKeyArray, batch: Batch, preamble: Array
    ):
        chunk = jax.tree.map(lambda x: x[0], batch)
        loss, sums = sums_fn(trainable, frozen, key, chunk, preamble, _num_targets(batch))
        return loss, _metrics(loss, sums, _num_targets(batch))

    return loss_fn


def generative_gradient(graph: nnx.GraphDef, memory: Memory) -> Callable[..., tuple]:
    """The function of a whole batch to `((loss, metrics), gradient)`; arguments are as above.

    Chunks are run one after the other and their gradients are added up. All are divided by the
    number of target tokens of the global batch, so chunking changes nothing.
    """
    gradient_fn = jax.value_and_grad(_chunk_sums(graph, memory), has_aux=True)

    def gradient(
        trainable: Params, frozen: Params, key: PRNGKeyArray, batch: Batch, preamble: Array
    ):
        count = _num_targets(batch)

        def run(chunk: Batch) -> tuple:
            return gradient_fn(trainable, frozen, key, chunk, preamble, count)

        def add(total: tuple, chunk: Batch) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, total, run(chunk)), None

        if memory.encode_chunks == 1:
            total = run(jax.tree.map(lambda x: x[0], batch))
        else:
            zero = jnp.float32(0)
            start = (zero, TokenSums(zero, zero)), jax.tree.map(jnp.zeros_like, trainable)
            total, _ = jax.lax.scan(add, start, batch)
        (loss, sums), gradients = total
        return (loss, _metrics(loss, sums, count)), gradients

    return gradient


def _chunk_sums(
    graph: nnx.GraphDef, memory: Memory
) -> Callable[..., tuple[Float[Array, ""], TokenSums]]:
    """The function that gives a chunk's part of the loss, and its sums."""

    def sums_fn(trainable, frozen, key, chunk, preamble, count):
        model = nnx.merge(graph, trainable, frozen)
        features = media_features(model, chunk, memory.remat)
        hidden, _ = model(
            chunk.tokens,
            chunk.positions,
            chunk.segments,
            preamble=preamble,
            media=None if features is None else (features, chunk.media.slots),
            dropout_key=key,
            remat=memory.remat,
        )
        sums = next_token_sums(
            model.final_norm(hidden),
            chunk.targets,
            model.logits_fn(),
            head_tokens=memory.head_tokens,
        )
        return sums.loss / count, sums

    return sums_fn


def _num_targets(batch: Batch) -> Float[Array, ""]:
    return (batch.targets >= 0).astype(jnp.float32).sum()


def _metrics(loss: Float[Array, ""], sums: TokenSums, count: Float[Array, ""]) -> Metrics:
    return jax.lax.stop_gradient(
        {"accuracy@1": sums.correct / count, "perplexity": jnp.exp(loss), "target_tokens": count}
    )
