"""Kernel alignment by nearest neighbours: do two spaces find the same items near each other?

Row i of both spaces belongs to the same item (an image and its caption, say). All metrics are
means over items in [0, 1], but CKNNA, which is at most 1. They see neighbours only, so they do
not change with rotation, and those of 100,000 items fit into a few megabytes.

Source: Huh et al., "The Platonic Representation Hypothesis" (2024), appendix A.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lco_jax.metrics.neighbours import Neighbours

_BLOCK_ENTRIES = 2**22
"""Pairs of neighbours that are compared at a time."""


def mutual_knn(x: Neighbours, y: Neighbours) -> float:
    """The share of an item's neighbours that are its neighbours in both spaces.

    Independent spaces share k / (N - 1). Source: LCO-Emb §3, figure 2.
    """
    return _mean_per_neighbour(_num_shared, x, y)


def mutual_knn_margin(x: Neighbours, y: Neighbours) -> float:
    """Half of the 95 % interval of `mutual_knn`, items taken as independent."""
    shares = _per_item(_num_shared, x, y) / x.ids.shape[1]
    return float(1.96 * shares.std(ddof=1) / np.sqrt(len(shares)))


def cycle_knn(x: Neighbours, y: Neighbours) -> float:
    """The share of items that are a neighbour in `x` of one of their own neighbours in `y`.

    Not symmetric, and below 1 for equal spaces: an outlier is nobody's neighbour.
    """
    _check(x, y)
    found = _over_rows(_is_found_again, x.ids, y.ids, jnp.asarray(x.ids))
    return float(np.mean(np.asarray(found)))


def lcs_knn(x: Neighbours, y: Neighbours) -> float:
    """The length of the longest common subsequence of both neighbour lists, divided by k.

    The authors' program leaves out the division, which their paper describes.
    """
    return _mean_per_neighbour(_common_subsequence, x, y)


def edit_distance_knn(x: Neighbours, y: Neighbours) -> float:
    """1 minus the edit distance (Levenshtein) of both neighbour lists, divided by k."""
    return 1 - _mean_per_neighbour(_edit_distance, x, y)


def cknna(x: Neighbours, y: Neighbours) -> float:
    """Unbiased CKA of the kernels that keep only cosines of neighbours common to both spaces.

    NaN where a kernel has no self-similarity. The authors' program adds 1e-6 to the denominator.

    Raises:
        ValueError: k is below 2, or there are fewer than 4 items.
    """
    _check(x, y)
    count, k = x.ids.shape
    if k < 2 or count < 4:
        raise ValueError(f"cknna got k={k} and {count} items; it needs k >= 2 and 4 items")
    denominator = _masked_hsic(x, x) * _masked_hsic(y, y)
    return _masked_hsic(x, y) / denominator**0.5 if denominator > 0 else float("nan")


# ------------------------------------------------------------------------- one item's neighbours


def _num_shared(own: Int[Array, "k"], other: Int[Array, "k"]) -> Int[Array, ""]:
    return jnp.sum(own[:, None] == other)


def _is_found_again(own, other, ids: Int[Array, "N k"], index: Int[Array, ""]):
    return jnp.any(ids[other] == index)


def _common_subsequence(own: Int[Array, "k"], other: Int[Array, "k"]) -> Int[Array, ""]:
    def extend(row, same):
        # row[j]: the longest one of what was read of `own` and the first j of `other`.
        longer = jnp.maximum(row[1:], row[:-1] + same)
        return row.at[1:].set(jax.lax.cummax(longer)), None

    start = jnp.zeros(len(other) + 1, jnp.int32)
    return jax.lax.scan(extend, start, own[:, None] == other)[0][-1]


def _edit_distance(own: Int[Array, "k"], other: Int[Array, "k"]) -> Int[Array, ""]:
    places = jnp.arange(len(other) + 1)

    def extend(row, same):
        best = jnp.minimum(row[1:] + 1, row[:-1] + ~same)  # delete, or replace
        best = jnp.concatenate([row[:1] + 1, best])
        return jax.lax.cummin(best - places) + places, None  # or insert

    return jax.lax.scan(extend, places, own[:, None] == other)[0][-1]


# ------------------------------------------------------------------------------------- all items


def _check(x: Neighbours, y: Neighbours) -> None:
    if x.ids.shape != y.ids.shape:
        raise ValueError(
            f"the spaces have neighbours of shape {x.ids.shape} and {y.ids.shape} (items, k); "
            "both need the same items and the same k"
        )


def _mean_per_neighbour(score: Callable, x: Neighbours, y: Neighbours) -> float:
    """The mean of an integer score of each item, divided by k."""
    return float(_per_item(score, x, y).sum(dtype=np.int64) / x.ids.size)


def _per_item(score: Callable, x: Neighbours, y: Neighbours) -> Int[np.ndarray, "N"]:
    _check(x, y)
    return np.asarray(_over_rows(_without_context(score), x.ids, y.ids, None))


@functools.cache
def _without_context(score: Callable) -> Callable:
    return lambda own, other, context, index: score(own, other)


@functools.partial(jax.jit, static_argnums=0)
def _over_rows(score: Callable, x_ids, y_ids, context):
    """`score(row of x, row of y, context, index)` of every row, a block at a time."""
    count, k = x_ids.shape
    rows = (jnp.asarray(x_ids), jnp.asarray(y_ids), jnp.arange(count))
    block = max(1, min(count, _BLOCK_ENTRIES // (k * k)))
    return jax.lax.map(lambda row: score(row[0], row[1], context, row[2]), rows, batch_size=block)


def _masked_hsic(x: Neighbours, y: Neighbours) -> float:
    """m (m - 3) times the unbiased HSIC of both kernels, each masked to common neighbours.

    The masked kernels have at most k entries a row: those of `x.ids`. They are not symmetric.
    Source: Song et al., "Feature selection via dependence maximization" (2012), equation 5.
    """
    parts = _masked_parts(*map(jnp.asarray, (*x, *y)))
    products, x_rows, y_rows, x_columns = (np.asarray(part, np.float64) for part in parts)
    count = len(x_rows)
    return float(
        products.sum()
        + x_rows.sum() * y_rows.sum() / ((count - 1) * (count - 2))
        - 2 * (x_columns @ y_rows) / (count - 2)
    )


@jax.jit
def _masked_parts(
    x_ids: Int[Array, "N k"],
    x_cosines: Float[Array, "N k"],
    y_ids: Int[Array, "N k"],
    y_cosines: Float[Array, "N k"],
) -> tuple[Float[Array, "N"], Float[Array, "N"], Float[Array, "N"], Float[Array, "N"]]:
    """Of the masked kernels K and L: Σ_j K_ij L_ji, the row sums of K, of L, column sums of K."""
    count, k = x_ids.shape
    block = max(1, min(count, _BLOCK_ENTRIES // (k * k)))

    def mask(row):
        ids, cosines, other_ids, other_cosines = row
        same = ids[:, None] == other_ids
        return (
            jnp.where(same.any(axis=1), cosines, 0),
            jnp.sum(jnp.where(same, other_cosines, 0), axis=1),
        )

    rows = (x_ids, x_cosines, y_ids, y_cosines)
    kernel, other_kernel = jax.lax.map(mask, rows, batch_size=block)

    def product(row):
        ids, values, index = row
        returned = jnp.sum(jnp.where(x_ids[ids] == index, other_kernel[ids], 0), axis=1)
        return values @ returned

    products = jax.lax.map(product, (x_ids, kernel, jnp.arange(count)), batch_size=block)
    columns = jnp.zeros(count).at[x_ids].add(kernel)
    return products, kernel.sum(axis=1), other_kernel.sum(axis=1), columns
