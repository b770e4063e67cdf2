"""Kernel alignment of two spaces over all layers: layer by layer, or each with each.

A layer is read when it is needed and reduced to its neighbours, its principal directions and,
for CKA, its centred vectors, of which two are in memory at a time unless all of a side are small.
What stays is a few hundred bytes per item and layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lco_jax.metrics import kernel_metrics, neighbour_metrics
from lco_jax.metrics.kernel_metrics import CCA_DIM, Centred, principal_directions
from lco_jax.metrics.names import METRICS
from lco_jax.metrics.neighbours import Neighbours, nearest_neighbours

Layers = Sequence[Float[np.ndarray, "N E"]]
"""The states of N items after each layer; layers may differ in width. `layers[i]` may read a file,
and is asked for only when it is needed."""

_NEIGHBOURS = {
    "mutual_knn": neighbour_metrics.mutual_knn,
    "cycle_knn": neighbour_metrics.cycle_knn,
    "lcs_knn": neighbour_metrics.lcs_knn,
    "edit_distance_knn": neighbour_metrics.edit_distance_knn,
    "cknna": neighbour_metrics.cknna,
}
_KERNELS = {"cka": kernel_metrics.cka, "unbiased_cka": kernel_metrics.unbiased_cka}

_KEEP_BYTES = 512 * 2**20
"""Centred layers that are kept for the next row of a comparison of each with each."""

# Rounding of float32 unit vectors; below it a layer holds one point and all its order is noise.
_POINT = 1e-6


@dataclass(frozen=True)
class Alignment:
    """The metrics of every compared pair of layers; NaN where a layer is a single point."""

    k: int
    num_items: int
    values: dict[str, Float[np.ndarray, "..."]]
    """By metric, `(L,)` layer by layer or `(Lx, Ly)` each with each."""
    margin: Float[np.ndarray, "..."] | None = None
    """Of `mutual_knn`, if it was asked for: half of its 95 % interval over items."""


@dataclass(frozen=True)
class _Summary:
    neighbours: Neighbours | None
    directions: np.ndarray | None
    is_point: bool


def align(
    x: Float[np.ndarray, "N E"],
    y: Float[np.ndarray, "N E2"],
    metrics: Sequence[str] = METRICS,
    *,
    k: int = 10,
    cca_dim: int = CCA_DIM,
) -> dict[str, float]:
    """The metrics of two spaces whose rows belong to the same items.

    Raises:
        ValueError: see `align_layers`.
    """
    values = align_layers([x], [y], metrics, k=k, cca_dim=cca_dim).values
    return {name: float(value[0]) for name, value in values.items()}


def align_layers(
    x: Layers,
    y: Layers,
    metrics: Sequence[str] = METRICS,
    *,
    k: int = 10,
    cca_dim: int = CCA_DIM,
    each_with_each: bool = False,
) -> Alignment:
    """The metrics of the layers of `x` and `y`; vectors are taken at length 1.

    Layers of a single point (the embeddings of a prompt's last token, say) score NaN: all their
    neighbours are ties, which two such layers would break alike.

    Args:
        k: neighbours of an item.
        cca_dim: directions that SVCCA compares.
        each_with_each: compare every layer of `x` with every layer of `y` instead of its own.

    Raises:
        ValueError: unknown metrics, unequal items, or too few for `k` and `cca_dim`.
    Source: LCO-Emb §3 (mutual kNN, k = 10, 1,000 pairs).
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"unknown metrics {unknown}; known are {list(METRICS)}")
    if not each_with_each and len(x) != len(y):
        raise ValueError(
            f"the sides have {len(x)} and {len(y)} layers; compare them each with each instead"
        )
    sides = [_summarise(side, metrics, k, cca_dim) for side in (x, y)]
    shape = (len(x), len(y)) if each_with_each else (len(x),)
    values = {name: np.full(shape, np.nan) for name in metrics}
    margin = np.full(shape, np.nan) if "mutual_knn" in metrics else None
    pairs = np.ndindex(shape) if each_with_each else ((i, i) for i in range(len(x)))
    pairs = [
        pair for pair in pairs if not (sides[0][pair[0]].is_point or sides[1][pair[1]].is_point)
    ]
    for i, j in pairs:
        place = (i, j) if each_with_each else i
        first, second = sides[0][i], sides[1][j]
        for name in metrics:
            if name in _NEIGHBOURS:
                score = _NEIGHBOURS[name](first.neighbours, second.neighbours)
            elif name == "svcca":
                score = kernel_metrics.svcca(first.directions, second.directions)
            else:
                continue
            values[name][place] = score
        if margin is not None:
            margin[place] = neighbour_metrics.mutual_knn_margin(first.neighbours, second.neighbours)
    kernels = [name for name in metrics if name in _KERNELS]
    if kernels:
        _fill_kernels(values, kernels, x, y, pairs, each_with_each)
    return Alignment(k, len(x[0]), values, margin)


def _fill_kernels(values, kernels, x, y, pairs, each_with_each) -> None:
    """CKA of all pairs; the layers of `y` are read once if they fit, else once a layer of `x`."""
    last, first = None, None
    kept: dict[int, Centred] = {}
    energies: dict[int, float] = {}
    for i, j in pairs:
        if i != last:
            last, first = i, Centred.of(_unit(x[i]))
        second = kept.get(j) or Centred.of(_unit(y[j]), energies.get(j))
        energies[j] = second.energy
        if each_with_each and second.vectors.nbytes * len(y) <= _KEEP_BYTES:
            kept[j] = second
        for name in kernels:
            values[name][(i, j) if each_with_each else i] = _KERNELS[name](first, second)


def _summarise(layers: Layers, metrics: Sequence[str], k: int, cca_dim: int) -> list[_Summary]:
    summaries = []
    for index in range(len(layers)):
        unit = _unit(layers[index])
        spread = np.sqrt(unit.var(axis=0, dtype=np.float64).sum())
        if spread < _POINT:
            summaries.append(_Summary(None, None, is_point=True))
            continue
        near = nearest_neighbours(unit, k) if _NEIGHBOURS.keys() & set(metrics) else None
        directions = principal_directions(unit, cca_dim) if "svcca" in metrics else None
        summaries.append(_Summary(near, directions, is_point=False))
    return summaries


def _unit(vectors: np.ndarray) -> Float[np.ndarray, "N E"]:
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)
