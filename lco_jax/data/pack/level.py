"""Which data shard and encode chunk takes which example: the fullest decides the shape of all."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from lco_jax.data.encode.encoded import Encoded

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
    roles = len(encoded) // numbers.size
    weights = weights_of(encoded).reshape(numbers.size, roles, -1).sum(1)
    order = level(weights.reshape(len(numbers), num_shards, -1, weights.shape[1]), groups)
    items = (order[:, None] * roles + np.arange(roles)).ravel().tolist()
    return numbers.ravel()[order].reshape(numbers.shape), [encoded[index] for index in items]


def level(weights: Float64[np.ndarray, "C J I W"], groups: Groups) -> Int64[np.ndarray, "N"]:
    """An order of all examples, so many in each of `C` encode chunks of each of `J` data shards,
    in which these weigh about as much.

    Heavy examples are dealt first, in rounds: in each, every cell gets one, and the lightest cell
    the heaviest of them. Within a cell they keep their order.

    Args:
        weights: of each example, of several kinds that count as much.
        groups: the shards that may exchange examples.
    """
    places = np.arange(np.prod(weights.shape[:3])).reshape(weights.shape[:3])
    order = places.copy()
    for group in groups:
        own = places[:, list(group)]
        taken = weights[:, list(group)].reshape(own.size, -1)
        dealt = _dealt(taken, own.shape[0] * own.shape[1])
        order[:, list(group)] = own.ravel()[dealt].reshape(own.shape)
    return order.ravel()


def _dealt(weights: Float64[np.ndarray, "N W"], cells: int) -> Int64[np.ndarray, "N"]:
    """The examples of the first cell, of the second, and so on."""
    totals = weights.sum(0)
    shares = weights / np.where(totals, totals, 1)
    rounds = np.argsort(-shares.sum(1), kind="stable").reshape(-1, cells)
    loads, dealt = np.zeros((cells, weights.shape[1])), np.empty(rounds.shape[::-1], np.int64)
    for number, heaviest in enumerate(rounds):
        # What counts is how much a cell has of what these examples have.
        lightest = np.argsort(loads @ shares[heaviest].mean(0), kind="stable")
        dealt[lightest, number] = heaviest
        loads[lightest] += shares[heaviest]
    return np.sort(dealt).ravel()


def weights_of(encoded: Sequence[Encoded | None]) -> Float64[np.ndarray, "N W"]:
    """Tokens, bytes of pixels, audio chunks and known features of items (None: absent)."""
    weights = np.zeros((len(encoded), 4))
    for index, item in enumerate(encoded):
        if item is None:
            continue
        weights[index, 0] = len(item.tokens)
        if item.media:
            weights[index, 1:] = (
                sum(medium.content.patches.nbytes for medium in item.visuals),
                sum(len(medium.content.frames) for medium in item.audios),
                sum(len(medium.places) for medium in item.known),
            )
    return weights
