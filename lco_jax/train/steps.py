"""The training state and the compiled steps on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from lco_jax.axes import act_spec
from lco_jax.config import Contrastive, Memory
from lco_jax.data.batch import Batch
from lco_jax.models.text import Tap, TextModel
from lco_jax.nn.stack import Remat
from lco_jax.train.losses import contrastive_loss
from lco_jax.train.optimizer import update_spread

Params = dict[str, Any]
"""Nested dictionary of arrays."""

BATCH_SPECS = Batch(
    tokens=act_spec("C B S"),
    segments=act_spec("C B S"),
    positions=act_spec("C B S X"),
    pool=act_spec("C J I"),
    valid=act_spec("C J I"),
    content=act_spec("C J I X"),
)
"""Where the arrays of a batch live on the mesh."""


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """Everything that a step reads and writes; frozen weights pass through unchanged."""

    step: Int[Array, ""]
    trainable: Params
    frozen: Params
    opt_state: optax.OptState


def encode(
    model: TextModel,
    chunk: Batch,
    prefix: Int[Array, "P"],
    *,
    dropout_key: PRNGKeyArray | None = None,
    remat: Remat = "none",
    tap: Tap | None = None,
) -> tuple[Float[Array, "J I D"], Any]:
    """Last-token states of the items of one chunk (arrays without `C`), after the final norm.

    `tap` may reduce each layer's states further; it gets the same pooled items.
    """

    def pool(hidden: Float[Array, "B S D"]) -> Float[Array, "J I D"]:
        # Items never leave their shard: `pool` counts positions within the shard's rows.
        return jax.shard_map(
            lambda h, index: h.reshape(-1, h.shape[-1])[index],
            in_specs=(act_spec("B S D"), act_spec("J I")),
            out_specs=act_spec("J I D"),
        )(hidden, chunk.pool)

    hidden, taps = model(
        chunk.tokens,
        chunk.positions,
        chunk.segments,
        prefix=prefix,
        dropout_key=dropout_key,
        remat=remat,
        tap=(lambda x: tap(pool(x))) if tap else None,
    )
    return model.final_norm(pool(hidden)).astype(jnp.float32), taps


def contrastive_objective(
    graph: nnx.GraphDef, objective: Contrastive, memory: Memory
) -> Callable[..., tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]:
    """The function `(trainable, frozen, dropout key, batch, prefix) -> (loss, metrics)`."""

    def loss_fn(trainable: Params, frozen: Params, key: PRNGKeyArray, batch: Batch, prefix: Array):
        def encode_chunk(trainable: Params, chunk: Batch) -> Float[Array, "J I D"]:
            model = nnx.merge(graph, trainable, frozen)
            return encode(model, chunk, prefix, dropout_key=key, remat=memory.remat)[0]

        if memory.encode_chunks == 1:
            pooled = encode_chunk(trainable, jax.tree.map(lambda x: x[0], batch))[None]
        else:
            # Gradient cache: only the pooled states of a chunk are kept, its activations are
            # computed again when the gradient of the loss reaches it.
            again = jax.checkpoint(encode_chunk, prevent_cse=False)
            _, pooled = jax.lax.scan(lambda _, chunk: (None, again(trainable, chunk)), None, batch)
        return contrastive_loss(pooled, batch.valid, batch.content, objective, memory)

    return loss_fn


def contrastive_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    objective: Contrastive,
    memory: Memory,
    seed: int,
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]:
    """The compiled step `(state, batch, prefix) -> (state, metrics)`; the state is donated."""
    loss_fn = contrastive_objective(graph, objective, memory)

    def step(state: TrainState, batch: Batch, prefix: Array):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.trainable, state.frozen, key, batch, prefix
        )
        metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
        trainable, opt_state = update_spread(optimizer, gradients, state.opt_state, state.trainable)
        return TrainState(state.step + 1, trainable, state.frozen, opt_state), metrics

    return jax.jit(step, donate_argnames="state")


def embed_step(graph: nnx.GraphDef) -> Callable[..., Float[Array, "I D"]]:
    """The compiled `(params, batch, prefix) -> pooled states` for batches with one role."""

    def embed(params: Params, batch: Batch, prefix: Array) -> Float[Array, "I D"]:
        model = nnx.merge(graph, params)
        return encode(model, jax.tree.map(lambda x: x[0], batch), prefix)[0][0]

    return jax.jit(embed)
