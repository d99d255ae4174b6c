"""The mean kernel in eigenvectors: global ones, and local ones of clusters of examples."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, accumulator, eps, numbers
from ..predict.pivoted import take_rows
from ..probes import check_seed
from .clustering import checked_clusters, spectral_clusters
from .features import check_features, unit
from .kernels import mean_kernel


@dataclass(frozen=True)
class Decomposition:
    """K̄ = U Λ Uᵀ and K̄_hh = U_h Λ_h U_hᵀ for the block of each cluster h; made by `decompose`."""

    kernel: Array
    """K̄ (m, m) in units of `unit`², wide."""
    unit: float
    """A power of two."""
    vectors: Array
    """U (m, r): the eigenvectors of K̄ whose eigenvalues are not zero to rounding, largest first."""
    values: np.ndarray
    """(r,): their eigenvalues, descending."""
    clusters: np.ndarray
    """(m,): 0 … H - 1."""
    local_vectors: tuple[Array, ...]
    """U_h (m_h, r_h) of each cluster, on its examples in their order."""
    local_values: tuple[np.ndarray, ...]
    """(r_h,) of each cluster, descending."""
    dtype: Any
    """Of what is made from it."""

    @property
    def xp(self) -> ModuleType:
        """The namespace."""
        return array_api_compat.array_namespace(self.kernel)  # type: ignore[no-any-return]

    @property
    def members(self) -> list[np.ndarray]:
        """The examples of each cluster."""
        return [np.flatnonzero(self.clusters == h) for h in range(len(self.local_values))]


def decompose(features: Array, clusters: Any = 10, seed: int = 0) -> Decomposition:
    """Take the mean kernel of classes apart into global and local eigenvectors.

    Parameters
    ----------
    features : array (m, O, k)
    clusters : int or integers (m,)
        H, for spectral clustering; or the cluster of each example.
    seed : int
        Of k-means.

    Returns
    -------
    Decomposition
        For O·m²·k multiplications and two eigendecompositions of m × m, about 20 m³.

    Raises
    ------
    InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError, ZeroKernelError
    """
    xp = check_features(features)
    size = unit(xp, features)
    given, seed = checked_clusters(clusters, features.shape[0]), check_seed(seed)
    K = mean_kernel(features, size)
    values, vectors = descending(xp, K)
    floor = K.shape[0] * eps(xp, K) * values[0]
    found = spectral_clusters(xp, K, given, seed) if isinstance(given, int) else given
    local = [descending(xp, take_rows(xp, take_rows(xp, K, i).T, i), floor) for i in groups(found)]
    kept = int(np.sum(values > floor))
    return Decomposition(
        K,
        size,
        vectors[:, :kept],
        values[:kept] * size**2,
        found,
        tuple(vectors for _, vectors in local),
        tuple(values * size**2 for values, _ in local),
        features.dtype if features.dtype == accumulator(xp, features) else xp.float32,
    )


def groups(clusters: np.ndarray) -> list[np.ndarray]:
    """The examples of each cluster."""
    return [np.flatnonzero(clusters == h) for h in range(int(clusters.max()) + 1)]


def descending(xp: ModuleType, K: Array, floor: float | None = None) -> tuple[np.ndarray, Array]:
    """Eigenvalues and eigenvectors of K, the largest first, those below `floor` left out."""
    values, vectors = xp.linalg.eigh(K)
    largest_first = numbers(values)[::-1]
    count = len(largest_first) if floor is None else int(np.sum(largest_first > floor))
    return largest_first[:count], xp.flip(vectors, axis=1)[:, :count]
