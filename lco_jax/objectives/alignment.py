"""Alignment: features of media are trained to match the embeddings of the tokens that name them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from lco_jax.config import Alignment, Memory
from lco_jax.data.pack.batch import Batch
from lco_jax.models.build import Params
from lco_jax.objectives.encode import media_features
from lco_jax.runtime.axes import BATCH_AXES, act_spec

_NEVER = -1e5
"""Log-probability of what cannot be; that of optax's CTC."""
_SLACK = 0.25
"""How far a token may reach into the shares of its neighbours. With more, frequent tokens do the
work of a blank and leave one feature to each of the others."""


def alignment_objective(
    graph: nnx.GraphDef, objective: Alignment, memory: Memory
) -> Callable[..., tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]:
    """The function `(trainable, frozen, dropout key, batch, preamble) -> (loss, metrics)`, for
    batches of one chunk.
    """

    def loss_fn(
        trainable: Params, frozen: Params, key: PRNGKeyArray, batch: Batch, preamble: Array
    ):
        model = nnx.merge(graph, trainable, frozen)
        chunk = jax.tree.map(lambda x: x[0], batch)
        features = media_features(model, chunk, memory.remat)
        # Moves V x D values, once a step.
        table = jax.reshard(model.embed(chunk.vocabulary[None])[0], jax.P())
        features = features[..., : table.shape[1]]  # not those that are added in later layers
        units = 0
        if chunk.media.vision is not None:
            units = features.shape[1]
            if chunk.media.audio is not None:
                units -= _num_audio_features(chunk.media.audio)
        return alignment_loss(features, chunk, table, units, objective)

    return loss_fn


def alignment_loss(
    features: Float[Array, "G X D"],
    chunk: Batch,
    table: Float[Array, "V D"],
    num_units: int,
    objective: Alignment,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """What the features of a chunk's media are worth as embeddings of the tokens that name them.

    The chance of a token falls with the squared distance of its embedding from the feature. The
    loss of a recording is that of its tokens one after another, each on one feature or several on
    end (CTC without blank) not far from an even share of the time, divided by the number of
    features; that of an image is the mean over its tokens of the negative logarithm of the token's
    mean chance on the image's features. To their sum comes the squared distance of features from
    the mean embedding of what they say.

    Args:
        table: embeddings of the vocabulary.
        num_units: how many of the features are of images; they come first.

    Returns:
        The loss and its parts; `read` is the share of features whose likeliest token is one of
        their item's.
    """

    def on_shard(features, tokens, targets, segments, slots, pool, valid, table, vocabulary):
        items = _items(targets, segments, slots, pool, valid, objective.max_response_tokens)
        sums = _sums(features[0].astype(jnp.float32), items, table, vocabulary, num_units)
        return jax.tree.map(lambda x: jax.lax.psum(x, BATCH_AXES), sums)

    letters = ("G X D", "B S", "B S", "B S", "B S", "J I", "J I", "X X", "X")
    specs = tuple(map(act_spec, letters))
    # optax's scan starts from values that are alike on all shards, which the check refuses.
    sums = jax.shard_map(on_shard, in_specs=specs, out_specs=jax.P(), check_vma=False)(
        features,
        chunk.tokens,
        chunk.targets,
        chunk.segments,
        chunk.media.slots,
        chunk.pool,
        chunk.valid,
        table.astype(jnp.float32),
        chunk.vocabulary,
    )
    audio_loss = sums["audio"] / jnp.maximum(sums["audio_features"], 1)
    image_loss = sums["image"] / jnp.maximum(sums["images"], 1)
    used = jnp.maximum(sums["features"], 1)
    distance = sums["distance"] / used
    metrics = {
        "audio_loss": audio_loss,
        "image_loss": image_loss,
        "distance": distance,
        "read": sums["read"] / used,
    }
    return audio_loss + image_loss + objective.pull * distance, jax.lax.stop_gradient(metrics)


class _Items(NamedTuple):
    """The media of a shard's items, and the tokens that name them."""

    slots: Int[Array, "I S"]
    """Features in order, -1 where there is none."""
    labels: Int[Array, "I N"]
    """Tokens in order, -1 behind the last."""


def _items(targets, segments, slots, pool, valid, most: int) -> _Items:
    length = targets.shape[1]
    row, last = pool[0] // length, pool[0] % length
    own = (segments[row] == segments[row, last][:, None]) & valid[0][:, None]
    found = jnp.where(own, targets[row], -1)
    order = jnp.argsort(found < 0, axis=1, stable=True)[:, :most]
    labels = jnp.take_along_axis(found, order, axis=1)
    return _Items(jnp.where(own, slots[row], -1), labels)


def _sums(
    features: Float[Array, "X D"],
    items: _Items,
    table: Float[Array, "V D"],
    vocabulary: Int[Array, "V"],
    num_units: int,
) -> dict[str, Float[Array, ""]]:
    lengths = jnp.square(table).sum(-1)
    logits = 2 * features @ table.T - lengths
    log_total = jax.nn.logsumexp(logits, axis=-1)

    places = jnp.searchsorted(vocabulary, items.labels)
    places = jnp.minimum(places, len(vocabulary) - 1)
    is_label = vocabulary[places] == items.labels
    first = jnp.argmax(
        (places[:, :, None] == places[:, None, :]) & is_label[:, None, :], axis=2
    )  # of the equal labels of an item the first one stands for all
    is_first = is_label & (first == jnp.arange(first.shape[1]))

    is_media = items.slots >= 0
    slots = jnp.maximum(items.slots, 0)
    own = table[places]  # (I, N, D)
    log_chances = (
        2 * jnp.einsum("isd,ind->isn", features[slots], own)
        - lengths[places][:, None, :]
        - log_total[slots][..., None]
    )
    audio_chances = jnp.where(is_label[:, None, :], log_chances, _NEVER)
    log_chances = jnp.where(is_first[:, None, :], log_chances, _NEVER)

    is_audio = is_media & (items.slots >= num_units)
    counts = is_label.sum(1)
    has_audio = (is_audio.sum(1) >= counts) & (counts > 0) & is_audio.any(1)
    near = _near_even_share(is_audio, counts, log_chances.shape[2])
    audio_losses = _in_order(jnp.where(near, audio_chances, _NEVER), is_audio, is_label)

    is_unit = is_media & (items.slots < num_units)
    has_image = is_unit.any(1) & (counts > 0)
    per_label = (
        jax.nn.logsumexp(jnp.where(is_unit[:, :, None], log_chances, _NEVER), axis=1)
        - jnp.log(jnp.maximum(is_unit.sum(1), 1))[:, None]
    )
    per_label = jnp.where(is_first, per_label, 0)
    image_losses = -per_label.sum(1) / jnp.maximum(is_first.sum(1), 1)

    used = jnp.zeros(len(features)).at[slots.ravel()].max(is_media.ravel().astype(jnp.float32))
    said = jax.lax.stop_gradient(jnp.exp(logits - log_total[:, None]) @ table)
    distances = jnp.square(features - said).sum(-1) / lengths.mean()
    likeliest = logits.argmax(-1)[slots]
    hits = ((likeliest[:, :, None] == places[:, None, :]) & is_label[:, None, :]).any(2) & is_media
    return {
        "audio": jnp.where(has_audio, audio_losses, 0).sum(),
        "audio_features": jnp.where(has_audio, is_audio.sum(1), 0).sum().astype(jnp.float32),
        "image": jnp.where(has_image, image_losses, 0).sum(),
        "images": has_image.sum().astype(jnp.float32),
        "distance": (used * distances).sum(),
        "features": used.sum(),
        "read": hits.sum().astype(jnp.float32),
    }


def _near_even_share(
    is_audio: Bool[Array, "I S"], counts: Int[Array, "I"], most: int
) -> Bool[Array, "I S N"]:
    """Whether a token may lie on a feature: near its share, were all tokens equally long."""
    length = jnp.maximum(is_audio.sum(1), 1)[:, None]
    middle = (jnp.cumsum(is_audio, axis=1) - 0.5) / length * counts[:, None]
    token = jnp.arange(most)
    distance = jnp.abs(middle[..., None] - (token + 0.5))
    # With few features to a token, its share may have none of their middles.
    half = 0.5 + jnp.maximum(_SLACK, counts[:, None] / length)[..., None]
    return distance <= half


def _in_order(
    allowed: Float[Array, "I S N"],
    is_audio: Bool[Array, "I S"],
    is_label: Bool[Array, "I N"],
) -> Float[Array, "I"]:
    """The negative log-likelihood of each item's labels in order, without a blank, each where it is
    allowed. Labels may be equal, so none of the columns are: CTC need not know their tokens.
    """
    numbers = jnp.broadcast_to(jnp.arange(allowed.shape[2]) + 1, is_label.shape)
    logits = jnp.concatenate([jnp.full_like(allowed[..., :1], _NEVER), allowed], axis=2)
    # optax normalises what it is given; the loss is of the chances as they are.
    total = jax.nn.logsumexp(logits, axis=2)
    loss = optax.ctc_loss(
        logits,
        (~is_audio).astype(jnp.float32),
        numbers,
        (~is_label).astype(jnp.float32),
    )
    return loss - jnp.where(is_audio, total, 0).sum(1)


def _num_audio_features(audio) -> int:
    """Of a shard: half of the rows of each chunk, which are half of its frames."""
    _, chunks, _, frames = audio.mels.shape
    return chunks * (frames // 4)
