"""Kernel alignment by all inner products: CKA, unbiased CKA, and SVCCA.

Row i of both spaces belongs to the same item. No kernel matrix is made: with centred vectors
everything that the metrics need follows from the cross-covariance and the lengths.

Source: Kornblith et al., "Similarity of Neural Network Representations Revisited" (2019);
Song et al., "Feature selection via dependence maximization" (2012); Raghu et al., "SVCCA" (2017).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jaxtyping import Array, Float

CCA_DIM = 10
"""Directions that SVCCA compares. Source: Huh et al. (2024)."""


@dataclass(frozen=True)
class Centred:
    """A space with its mean removed, as the kernel metrics need it."""

    vectors: Float[np.ndarray, "N M"]
    """Float32. Where there are fewer vectors than dimensions they are turned into a space of N
    dimensions, in which all inner products are the same."""
    energies: Float[np.ndarray, "N"]
    """Squared lengths, float64."""
    energy: float
    """Σ_ij K_ij² of the centred kernel."""

    @classmethod
    def of(cls, vectors: Float[np.ndarray, "N E"], energy: float | None = None) -> "Centred":
        """Remove the mean of `vectors`; `energy` is given if it is known from before."""
        centred = vectors - vectors.mean(axis=0, dtype=np.float64)
        if len(centred) < centred.shape[1]:
            centred = np.linalg.qr(centred.T, mode="r").T
        energies = np.einsum("ne,ne->n", centred, centred)
        narrow = centred.astype(np.float32)
        return cls(narrow, energies, _cross_energy(narrow, narrow) if energy is None else energy)


def cka(x: Centred, y: Centred) -> float:
    """Centred kernel alignment of the linear kernels; NaN for a space of one point.

    In high dimensions it is biased upwards: independent spaces of N items and more dimensions
    than that score near 1. The authors of the Platonic Representation Hypothesis add 1e-6 to
    the denominator.
    """
    return _ratio(_cross_energy(x.vectors, y.vectors), x.energy, y.energy)


def unbiased_cka(x: Centred, y: Centred) -> float:
    """CKA with the unbiased estimator of HSIC: independent spaces score 0 on average.

    NaN for a space without structure.

    Raises:
        ValueError: fewer than 4 items.
    """
    if len(x.energies) < 4:
        raise ValueError(f"unbiased CKA got {len(x.energies)} items and needs at least 4")
    both = _unbiased_hsic(x, y, _cross_energy(x.vectors, y.vectors))
    return _ratio(both, _unbiased_hsic(x, x, x.energy), _unbiased_hsic(y, y, y.energy))


def principal_directions(
    vectors: Float[np.ndarray, "N E"], dim: int = CCA_DIM
) -> Float[np.ndarray, "N dim"]:
    """An orthonormal basis (float64) of the items' scores on the `dim` largest principal
    components, after every dimension was brought to mean 0 and variance 1.

    Raises:
        ValueError: there are not that many components.
    """
    count, width = vectors.shape
    if dim > min(count - 1, width):
        raise ValueError(
            f"SVCCA over {dim} directions needs {dim + 1} items of width {dim}, got {vectors.shape}"
        )
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    deviation = centred.std(axis=0)
    scaled = centred / np.where(deviation > 0, deviation, 1)
    if dim >= min(count, width) - 1:
        return np.linalg.svd(scaled, full_matrices=False)[0][:, :dim]
    # Float64 and a Krylov solver: the eigenvectors of a float32 covariance err by far more than
    # the metric may where eigenvalues are close.
    start = np.random.default_rng(0).normal(size=min(count, width))
    return scipy.sparse.linalg.svds(scaled, k=dim, v0=start, return_singular_vectors="u")[0]


def svcca(x: Float[np.ndarray, "N dim"], y: Float[np.ndarray, "N dim"]) -> float:
    """The mean canonical correlation of two sets of `principal_directions`.

    The authors of the Platonic Representation Hypothesis find the directions with a randomised
    solver; these are exact.
    """
    return float(np.linalg.svd(x.T @ y, compute_uv=False).mean())


def _ratio(both: float, first: float, second: float) -> float:
    return both / (first * second) ** 0.5 if first > 0 and second > 0 else float("nan")


def _unbiased_hsic(x: Centred, y: Centred, energy: float) -> float:
    """m (m - 3) times the unbiased HSIC, from the `energy` of both kernels.

    It does not change with centring, after which the rows of a kernel without its diagonal sum
    to minus the diagonal: equation 5 of Song et al. loses all sums over pairs but one.
    """
    count = len(x.energies)
    diagonal = float(x.energies @ y.energies)
    totals = float(x.energies.sum() * y.energies.sum())
    return energy - diagonal * count / (count - 2) + totals / ((count - 1) * (count - 2))


def _cross_energy(x: Float[np.ndarray, "N M"], y: Float[np.ndarray, "N M2"]) -> float:
    """Σ_ij K_ij L_ij = |Xᵀ Y|² of the centred kernels."""
    if len(x) != len(y):
        raise ValueError(f"the spaces have {len(x)} and {len(y)} items")
    rows = _row_energies(jnp.asarray(x), jnp.asarray(y))
    return float(np.asarray(rows).sum(dtype=np.float64))


@jax.jit
def _row_energies(x: Float[Array, "N M"], y: Float[Array, "N M2"]) -> Float[Array, "M"]:
    return jnp.sum(jnp.square(jnp.matmul(x.T, y, precision="highest")), axis=1)
