"""The ablation arm that trains a matrix behind frozen vectors and nothing of the model."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from lco_jax.config import Full, Memory, TrainConfig
from lco_jax.data.records import Triplet
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.lab.info_nce import Encode
from lco_jax.objectives.contrastive import contrastive_loss
from lco_jax.train.optimizer import make_optimizer, make_schedule


def train_projection(encode: Encode, config: TrainConfig) -> Float[np.ndarray, "E E"]:
    """The matrix that minimises the loss of `config` on its batches, on the mesh that is set.

    It starts as 1, so that the first vectors are those of the model. The examples are those that
    a run with this config would see; what the model makes of them is computed once.

    Raises:
        ValueError: the config has no number of steps.
    """
    if config.num_steps is None:
        raise ValueError("num_steps=None: a projection needs its number of steps")
    size, roles = config.data.batch_size, 2 + config.data.num_negatives
    stream = ExampleStream(config.data, config.seed)
    examples = [_members(stream[index], roles) for index in range(config.num_steps * size)]
    items = list(dict.fromkeys(item for members in examples for item in members))
    place = {item: index for index, item in enumerate(items)}
    vectors = jnp.asarray(encode(items))
    table = np.full((len(examples), roles), -1)
    for row, members in zip(table, examples, strict=True):
        row[: len(members)] = [place[item] for item in members]
    batches = table.reshape(config.num_steps, size, roles).swapaxes(1, 2)[:, None]  # (S, C, J, I)

    schedule = make_schedule(config.optimizer, config.num_steps)
    optimizer = make_optimizer(config.optimizer, schedule, Full())
    params = {"kernel": jnp.eye(vectors.shape[1])}
    state = optimizer.init(params)
    step = jax.jit(functools.partial(_step, optimizer, config.objective))
    for chosen in batches:
        params, state = step(params, state, vectors, chosen)
    return np.asarray(params["kernel"])


def _step(optimizer, objective, params: dict[str, Array], state, vectors, chosen):
    def loss_fn(params: dict[str, Array]) -> Float[Array, ""]:
        pooled = vectors[chosen] @ params["kernel"]
        content = jnp.stack([chosen, chosen], axis=-1).astype(jnp.uint32)  # one of each item
        return contrastive_loss(pooled, chosen >= 0, content, objective, Memory())[0]

    updates, state = optimizer.update(jax.grad(loss_fn)(params), state, params)
    return optax.apply_updates(params, updates), state


def _members(triplet: Triplet, roles: int) -> Sequence:
    return (triplet.anchor, triplet.positive, *triplet.negatives)[:roles]
