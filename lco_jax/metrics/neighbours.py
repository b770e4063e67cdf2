"""The nearest neighbours of every vector within its own set, found in blocks of rows."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

_BLOCK_BYTES = 64 * 2**20
"""Of cosines that exist at a time; the full matrix of 100,000 vectors has 40 GB."""


class Neighbours(NamedTuple):
    """The k nearest neighbours of each of N vectors, nearest first, itself left out."""

    ids: Int32[np.ndarray, "N k"]
    cosines: Float[np.ndarray, "N k"]


def nearest_neighbours(unit: Float[np.ndarray, "N E"], k: int) -> Neighbours:
    """The neighbours with the largest inner products; of equal ones the first.

    Args:
        unit: unit vectors, so that inner products are cosines.

    Raises:
        ValueError: fewer than k other vectors.
    """
    count = len(unit)
    if not 0 < k < count:
        raise ValueError(f"k={k} must be in 1..{count - 1} for {count} vectors")
    block = max(1, min(count, _BLOCK_BYTES // (4 * count)))
    cosines, ids = _search(jnp.asarray(unit, jnp.float32), k, block)
    return Neighbours(np.asarray(ids), np.asarray(cosines))


@functools.partial(jax.jit, static_argnames=("k", "block"))
def _search(
    unit: Float[Array, "N E"], k: int, block: int
) -> tuple[Float[Array, "N k"], Int32[Array, "N k"]]:
    everyone = jnp.arange(len(unit))

    def search_one(index):
        cosines = jnp.matmul(unit, unit[index], precision="highest")
        return jax.lax.top_k(jnp.where(everyone == index, -jnp.inf, cosines), k)

    return jax.lax.map(search_one, everyone, batch_size=block)
