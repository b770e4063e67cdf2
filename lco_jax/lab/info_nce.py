"""The contrastive loss of a model on triplets, in batches as in training."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lco_jax.config import Contrastive
from lco_jax.data.records import Item, Triplet
from lco_jax.objectives.contrastive import contrastive_loss

Encode = Callable[[Sequence[Item]], Float[np.ndarray, "N E"]]


def batch_losses(
    encode: Encode,
    triplets: Sequence[Triplet],
    *,
    batch_size: int,
    num_negatives: int,
    temperature: float,
    seed: int = 0,
) -> Float[np.ndarray, "K"]:
    """InfoNCE of K batches of different triplets, on the mesh that is set; a rest is left out.

    Args:
        encode: vectors of items; they need not be unit vectors.

    Raises:
        ValueError: fewer triplets than a batch.
    """
    if len(triplets) < batch_size:
        raise ValueError(f"{len(triplets)} triplets do not fill a batch of {batch_size}")
    order = np.random.default_rng(seed).permutation(len(triplets))
    order = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    roles = [(t.anchor, t.positive, *t.negatives)[: 2 + num_negatives] for t in triplets]
    items = list(dict.fromkeys(item for row in roles for item in row))
    place = {item: index for index, item in enumerate(items)}
    vectors = np.asarray(encode(items), np.float32)
    table = np.full((len(roles), 2 + num_negatives), -1)
    for row, members in zip(table, roles, strict=True):
        row[: len(members)] = [place[item] for item in members]
    loss_fn = _compiled(Contrastive(temperature=temperature))
    losses = []
    for batch in order:
        chosen = table[batch].T[None]  # (C, J, I)
        pooled = jnp.asarray(vectors[chosen])
        content = np.zeros((*chosen.shape, 2), np.uint32)
        losses.append(float(loss_fn(pooled, chosen >= 0, content)[0]))
    return np.array(losses)


@functools.lru_cache(maxsize=4)
def _compiled(objective: Contrastive) -> Callable:
    return jax.jit(functools.partial(contrastive_loss, config=objective))
