"""Which data shard and encode chunk takes which example: the fullest decides the shape of all."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import item_lengths
from lco_jax.data.pack.shares import IDLE, slots_per_cell

Groups = Sequence[Sequence[int]]
"""Data shards that may exchange examples."""


def levelled(
    numbers: Int64[np.ndarray, "C I"],
    encoded: Sequence[Encoded | None],
    num_shards: int,
    groups: Groups,
) -> tuple[Int64[np.ndarray, "C I"], list[Encoded | None]]:
    """The examples of a process, so that the encode chunks of its data shards have about as much
    of everything.

    Args:
        encoded: their items, by chunk, shard, example and role (None: absent).
        groups: shards by their place among those of the process.
    """
    if len(numbers) * num_shards == 1:
        return numbers, list(encoded)
    roles = len(encoded) // numbers.size
    weights = weights_of(encoded).reshape(numbers.size, roles, -1).sum(1)
    order = level(weights.reshape(len(numbers), num_shards, -1, weights.shape[1]), groups)
    items = (order[:, None] * roles + np.arange(roles)).ravel().tolist()
    return numbers.ravel()[order].reshape(numbers.shape), [encoded[index] for index in items]


def level(weights: Float64[np.ndarray, "C J I W"], groups: Groups) -> Int64[np.ndarray, "N"]:
    """An order of all examples, so many in each of `C` encode chunks of each of `J` data shards,
    in which these weigh about as much. Within a chunk of a shard they keep their order.

    Args:
        weights: of each example, of several kinds that count as much.
        groups: the shards that may exchange examples.
    """
    places = np.arange(np.prod(weights.shape[:3])).reshape(weights.shape[:3])
    order = places.copy()
    for group in groups:
        own = places[:, list(group)]
        taken = weights[:, list(group)].reshape(own.size, -1)
        totals = taken.sum(0)
        shares = taken / np.where(totals, totals, 1)
        heaviest_first = np.argsort(-shares.sum(1), kind="stable")
        dealt = _dealt(heaviest_first, shares, own.shape[0] * own.shape[1])
        order[:, list(group)] = own.ravel()[dealt].reshape(own.shape)
    return order.ravel()


def spread(sizes: Int64[np.ndarray, "N K"], cells: int) -> Int64[np.ndarray, "X I"]:
    """The numbers of the examples of a batch for each encode chunk of each data shard, by what is
    known before they are read: cells hold about as many of each kind, and together about as much
    of what the last size says. Where the batch does not divide, some cells have an idle slot.

    Args:
        sizes: of the examples, by number; those that are equal in all but the last are of a kind.
    """
    idle = slots_per_cell(len(sizes), cells) * cells - len(sizes)
    by_kind = np.lexsort([-sizes[:, -1], *sizes[:, -2::-1].T])
    order = np.append(by_kind, np.arange(len(sizes), len(sizes) + idle))
    dealt = _dealt(order, np.append(sizes[:, -1], np.zeros(idle))[:, None], cells)
    return np.where(dealt < len(sizes), dealt, IDLE)


def _dealt(
    order: Int64[np.ndarray, "N"], weights: Float64[np.ndarray, "N W"], cells: int
) -> Int64[np.ndarray, "X I"]:
    """The examples of each cell: they are dealt in their order, in rounds, one to every cell. Of a
    round the lightest cell takes the heaviest.
    """
    if cells == 1:
        return np.sort(order)[None]
    loads, dealt = np.zeros((cells, weights.shape[1])), []
    for own in order.reshape(-1, cells):
        # What counts is how much a cell has of what these examples have.
        kinds = weights[own].mean(0)
        taken = np.empty_like(own)
        lightest = np.argsort(loads @ kinds, kind="stable")
        taken[lightest] = own[np.argsort(-(weights[own] @ kinds), kind="stable")]
        loads += weights[taken]
        dealt.append(taken)
    return np.sort(np.stack(dealt, 1))


def weights_of(encoded: Sequence[Encoded | None]) -> Float64[np.ndarray, "N W"]:
    """Tokens, patches, audio chunks and known features of items (None: absent)."""
    weights = np.zeros((len(encoded), 4))
    weights[:, 0] = item_lengths(encoded)
    for index, item in enumerate(encoded):
        if item is not None and item.media:
            weights[index, 1:] = (
                sum(len(medium.content.patches) for medium in item.visuals),
                sum(len(medium.content.frames) for medium in item.audios),
                sum(len(medium.places) for medium in item.known),
            )
    return weights
