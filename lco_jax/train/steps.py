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
from lco_jax.data.media_batch import AudioBatch, MediaBatch, VisionBatch
from lco_jax.models.omni import OmniModel
from lco_jax.models.text import Tap
from lco_jax.nn.stack import Remat
from lco_jax.train.losses import contrastive_loss
from lco_jax.train.mesh import compile_for_mesh
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
"""Where the arrays of a batch of texts live on the mesh."""
MEDIA_SPECS = MediaBatch(
    vision=VisionBatch(*(act_spec(f"C G {rest}") for rest in ("P X", "X X", "X X", "P X"))),
    audio=AudioBatch(act_spec("C G X X X"), act_spec("C G X")),
    slots=act_spec("C B S"),
    known=act_spec("C G X X"),
)


def batch_specs(batch: Batch) -> Batch:
    """Where the arrays of a batch live on the mesh."""
    specs = BATCH_SPECS
    if batch.targets is not None:
        specs = specs._replace(targets=act_spec("C B S"))
    if batch.vocabulary is not None:
        specs = specs._replace(vocabulary=act_spec("C X"))
    if batch.media is None:
        return specs
    given = [part is not None for part in batch.media]
    parts = (spec if there else None for spec, there in zip(MEDIA_SPECS, given, strict=True))
    return specs._replace(media=MediaBatch(*parts))


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """Everything that a step reads and writes; frozen weights pass through unchanged."""

    step: Int[Array, ""]
    trainable: Params
    frozen: Params
    opt_state: optax.OptState


Step = Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]
"""The compiled `(state, batch, prefix) -> (state, metrics)`; the state is donated."""


def media_features(
    model: OmniModel, chunk: Batch, remat: Remat = "none"
) -> Float[Array, "G X D"] | None:
    """What the towers make of the media of one chunk (None: it has none)."""
    if chunk.media is None:
        return None
    media = chunk.media
    return model.features(media.vision, media.audio, media.known, remat=remat)


def encode(
    model: OmniModel,
    chunk: Batch,
    prefix: Int[Array, "P"],
    features: Float[Array, "G X D"] | None,
    *,
    dropout_key: PRNGKeyArray | None = None,
    remat: Remat = "none",
    tap: Tap | None = None,
) -> tuple[Float[Array, "J I D"], Any]:
    """Last-token states of the items of one chunk (arrays without `C`), after the final norm.

    `features` are those of the chunk's media; `tap` may reduce each layer's states further: it
    gets the same pooled items.
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
        media=None if features is None else (features, chunk.media.slots),
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
        towers_train = bool(trainable.keys() & {"vision", "audio"})

        def run_towers(trainable: Params, chunk: Batch) -> Float[Array, "G X D"] | None:
            return media_features(nnx.merge(graph, trainable, frozen), chunk, memory.remat)

        def encode_chunk(trainable: Params, chunk: Batch, features) -> Float[Array, "J I D"]:
            model = nnx.merge(graph, trainable, frozen)
            if towers_train:
                features = run_towers(trainable, chunk)
            return encode(model, chunk, prefix, features, dropout_key=key, remat=memory.remat)[0]

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


def contrastive_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    objective: Contrastive,
    memory: Memory,
    seed: int,
) -> Step:
    """The step that minimises the contrastive loss."""
    loss_fn = contrastive_objective(graph, objective, memory)
    return update_step(jax.value_and_grad(loss_fn, has_aux=True), optimizer, seed)


def update_step(
    gradient_fn: Callable[..., tuple[tuple[Float[Array, ""], dict[str, Float[Array, ""]]], Params]],
    optimizer: optax.GradientTransformation,
    seed: int,
) -> Step:
    """The step that follows a gradient.

    Args:
        gradient_fn: `(trainable, frozen, dropout key, batch, prefix)` to loss, metrics and the
            gradient of what trains.
    """

    def step(state: TrainState, batch: Batch, prefix: Array):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, metrics), gradients = gradient_fn(state.trainable, state.frozen, key, batch, prefix)
        metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
        trainable, opt_state = update_spread(optimizer, gradients, state.opt_state, state.trainable)
        return TrainState(state.step + 1, trainable, state.frozen, opt_state), metrics

    return compile_for_mesh(step, donate_argnames="state")


def embed_step(graph: nnx.GraphDef) -> Callable[..., Float[Array, "I D"]]:
    """The compiled `(params, batch, prefix) -> pooled states` for batches with one role."""

    def embed(params: Params, batch: Batch, prefix: Array) -> Float[Array, "I D"]:
        model = nnx.merge(graph, params)
        chunk = jax.tree.map(lambda x: x[0], batch)
        return encode(model, chunk, prefix, media_features(model, chunk))[0][0]

    return compile_for_mesh(embed)
