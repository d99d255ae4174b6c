"""Spectral clustering of a kernel.

Reference: Ng, Jordan, Weiss, "On spectral clustering: analysis and an algorithm", NeurIPS 2001.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, ShapeError, numbers

RESTARTS = 10
"""Starts of k-means, of which the best is kept."""


def checked_clusters(clusters: Any, count: int) -> int | np.ndarray:
    """H, or the cluster of each of `count` examples as 0 … H - 1.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError
    """
    if isinstance(clusters, bool | str) or clusters is None:
        raise InvalidTypeError(f"clusters= takes their number, or the cluster of each example, not {clusters!r}")
    if isinstance(clusters, int | np.integer):
        if not 1 <= clusters <= count:
            raise InvalidValueError(f"clusters={clusters}: {count} examples make 1 to {count} clusters")
        return int(clusters)
    given = numbers(clusters) if array_api_compat.is_array_api_obj(clusters) else np.asarray(clusters)
    if given.dtype.kind not in "iuf" or not np.array_equal(given, np.round(given)):
        raise InvalidTypeError("clusters= takes their number, or an integer for each example")
    if given.shape != (count,):
        raise ShapeError(f"clusters= gives each of {count} examples its cluster; got shape {given.shape}")
    return np.unique(given, return_inverse=True)[1]


def spectral_clusters(xp: ModuleType, K: Array, count: int, seed: int) -> np.ndarray:
    """Clusters (m,) of the examples of a kernel (m, m), numbered in the order of their first examples."""
    if count == 1:
        return np.zeros(K.shape[0], dtype=int)
    similar = xp.where(K > 0, K, xp.zeros_like(K))
    degrees = xp.sum(similar, axis=1)
    roots = xp.where(degrees > 0, degrees, xp.ones_like(degrees)) ** 0.5
    _, vectors = xp.linalg.eigh(similar / (roots[:, None] * roots))
    rows = numbers(vectors[:, -count:])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return _k_means(rows / np.where(lengths > 0, lengths, 1), count, seed)


def _k_means(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    from scipy.cluster.vq import ClusterError, kmeans2

    best, least = None, np.inf
    for start in range(RESTARTS):
        draw = np.random.default_rng([seed, start])
        try:
            centres, found = kmeans2(points, count, iter=100, minit="++", missing="raise", rng=draw)
        except ClusterError:  # a cluster lost all its points
            continue
        error = np.sum((points - centres[found]) ** 2)
        if error < least:
            best, least = found, error
    if best is None:
        raise InvalidValueError(f"the examples do not fall into {count} clusters; ask for fewer")
    _, first, numbered = np.unique(best, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbered]
