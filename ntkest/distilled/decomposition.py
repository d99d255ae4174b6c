"""The mean kernel in eigenvectors: global ones of all examples, and local ones of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, beside, eps, numbers, scalar_dtype
from ..predict.pivoted import take_rows
from ..probes import check_seed
from .clustering import checked_clusters, spectral_clusters
from .features import check_features, unit
from .kernels import mean_kernel


@dataclass(frozen=True)
class Decomposition:
    """K̄ = U Λ Uᵀ, and U_h Λ_h U_hᵀ of its block for each cluster h; made by `decompose`.

    Eigenvalues descend, those that are zero to rounding being 0. Arrays are wide: in float64 where the device has it.
    """

    kernel: Array
    """K̄ / unit² (m, m)."""
    unit: float
    """A power of two, near the largest entry of the features."""
    vectors: Array
    """U (m, m)."""
    values: np.ndarray
    """Λ (m,)."""
    clusters: np.ndarray
    """(m,): the cluster of each example, 0 … H - 1."""
    local_vectors: tuple[Array, ...]
    """U_h (m_h, m_h) of each cluster, on its examples in their order."""
    local_values: tuple[np.ndarray, ...]
    """Λ_h (m_h,) of each cluster."""
    dtype: Any
    """Of the features, at least float32; what is made from this has it too."""

    @property
    def xp(self) -> ModuleType:
        """The namespace."""
        return array_api_compat.array_namespace(self.kernel)  # type: ignore[no-any-return]

    @property
    def rank(self) -> int:
        """How many eigenvalues of K̄ are not zero to rounding."""
        return int(np.count_nonzero(self.values))

    @property
    def members(self) -> list[np.ndarray]:
        """The examples of each cluster."""
        return _members(self.clusters)

    def block(self, h: int) -> Array:
        """K̄ among the examples of a cluster, in units of `unit`²."""
        return _block(self.xp, self.kernel, self.members[h])

    def padded(self, pairs: Sequence[tuple[int, int]]) -> Array:
        """Local eigenvectors, named by cluster and place, with zeros for the examples of all other clusters (m, n)."""
        parts = []
        for h, vectors in enumerate(self.local_vectors):
            which = np.zeros((vectors.shape[1], len(pairs)))
            for column, (cluster, i) in enumerate(pairs):
                if cluster == h:
                    which[i, column] = 1
            parts.append(vectors @ beside(self.xp, which, vectors))
        return take_rows(self.xp, self.xp.concat(parts, axis=0), np.argsort(np.concatenate(self.members)))


def decompose(features: Array, clusters: Any = 10, seed: int = 0) -> Decomposition:
    """Take the mean kernel of classes apart into global and local eigenvectors.

    Parameters
    ----------
    features : array (m, O, k)
    clusters : int or integers (m,)
        H, for spectral clustering; or the cluster of each example.
    seed : int
        Of the clustering.

    Returns
    -------
    Decomposition
        For O·m²·k multiplications and two eigendecompositions of m × m, one for the clustering: about 20 m³.

    Raises
    ------
    InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError
    ZeroKernelError
        All features are zero.
    """
    xp = check_features(features)
    size = unit(xp, features)
    found, seed = checked_clusters(clusters, int(features.shape[0])), check_seed(seed)
    K = mean_kernel(features, size)
    values, vectors = _descending(xp, K)
    floor = int(K.shape[0]) * eps(xp, K) * values[0]
    if isinstance(found, int):
        found = spectral_clusters(xp, K, found, seed)
    local = [_descending(xp, _block(xp, K, i)) for i in _members(found)]
    return Decomposition(
        K,
        size,
        vectors,
        size**2 * np.where(values > floor, values, 0),
        found,
        tuple(u for _, u in local),
        tuple(size**2 * np.where(v > floor, v, 0) for v, _ in local),
        scalar_dtype(xp, features),
    )


def _members(clusters: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(clusters == h) for h in range(int(clusters.max()) + 1)]


def _block(xp: ModuleType, K: Array, indices: np.ndarray) -> Array:
    return take_rows(xp, take_rows(xp, K, indices).T, indices)


def _descending(xp: ModuleType, K: Array) -> tuple[np.ndarray, Array]:
    values, vectors = xp.linalg.eigh(K)
    return numbers(values)[::-1], xp.flip(vectors, axis=1)
