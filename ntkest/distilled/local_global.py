"""Local-global compression, and the global eigenvectors as its baseline."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..linearization import Array, InvalidValueError, beside, number
from .compression import Compression, checked_size
from .decomposition import Decomposition, decompose
from .truncation import truncation_rank

COVERAGES = ("additive", "best", "unnormalised")

DEPENDENT = 1e-6
"""Columns are left out whose part outside the others is no longer than this, relative to the longest."""


def global_eigenvectors(features: Array, size: int) -> Compression:
    """The baseline: the eigenvectors of the mean kernel with the largest eigenvalues.

    No other `size` vectors keep more of its trace.

    Parameters
    ----------
    features : array (m, O, k), or Decomposition
    size : int
        s. Fewer come back where the kernel has a lower rank to rounding.

    Raises
    ------
    InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError, ZeroKernelError
    """
    parts = features if isinstance(features, Decomposition) else decompose(features, 1)
    size = checked_size(size, int(parts.vectors.shape[0]))
    vectors = parts.xp.astype(parts.vectors[:, :size], parts.dtype)
    return Compression(vectors, ("global",) * int(vectors.shape[1]))


def local_global(
    features: Any,
    size: int | None = None,
    *,
    variance: float = 0.95,
    coverage_threshold: float = 0.9,
    clusters: Any = 10,
    orthonormal: bool = True,
    coverage: str = "additive",
    seed: int = 0,
) -> Compression:
    """Local eigenvectors of clusters of examples, and the global ones that these do not contain."""
    if coverage not in COVERAGES:
        raise InvalidValueError(f"coverage= takes one of {', '.join(COVERAGES)}, not {coverage!r}")
    parts = features if isinstance(features, Decomposition) else decompose(features, clusters, seed)
    xp = parts.xp
    locals_, gaps, covered = _by_thresholds(parts, variance, coverage_threshold, coverage)
    if size is not None:
        size = checked_size(size, parts.clusters.shape[0])
        locals_, gaps = locals_[:size], gaps[: max(0, size - len(locals_))]
    columns = [_padded(parts, h, i) for h, i in locals_]
    kinds = ["local"] * len(columns)
    basis = list(columns)
    for j in gaps:
        u = parts.vectors[:, j]
        rest = u
        for _ in range(2):
            for b in basis:
                rest = rest - b * xp.sum(b * rest)
        length = number(xp.linalg.vector_norm(rest))
        if length > DEPENDENT:
            basis.append(rest / length)
            columns.append(u)
            kinds.append("gap")
    vectors = xp.astype(xp.stack(basis if orthonormal else columns, axis=1), parts.dtype)
    return Compression(vectors, tuple(kinds), parts.clusters, covered)


def _by_thresholds(
    parts: Decomposition, variance: float, threshold: float, kind: str
) -> tuple[list[tuple[int, int]], list[int], np.ndarray]:
    ranks = [truncation_rank(v, 1 - variance) if len(v) else 0 for v in parts.local_values]
    pairs = [(h, i) for h, rank in enumerate(ranks) for i in range(rank)]
    pairs.sort(key=lambda p: -parts.local_values[p[0]][p[1]])
    first = truncation_rank(parts.values, 1 - variance)
    covered = _coverage(parts, ranks, first, kind)
    return pairs, [int(j) for j in np.flatnonzero(covered < threshold)], covered


def _coverage(parts: Decomposition, ranks: list[int], first: int, kind: str) -> np.ndarray:
    from ..linearization import numbers
    from ..predict.pivoted import take_rows

    xp, inside, within = parts.xp, [], []
    for h, members in enumerate(parts.members):
        u = take_rows(xp, parts.vectors[:, :first], members)
        inside.append(numbers(xp.sum((parts.local_vectors[h][:, : ranks[h]].T @ u) ** 2, axis=0)))
        within.append(numbers(xp.sum(u * u, axis=0)))
    found, norms = np.array(inside), np.array(within)
    if kind == "additive":
        return found.sum(axis=0)
    if kind == "best":
        return (found / np.where(norms > 0, norms, 1)).max(axis=0)
    return found.max(axis=0)


def _padded(parts: Decomposition, h: int, i: int) -> Array:
    xp, members = parts.xp, parts.members[h]
    local = parts.local_vectors[h][:, i]
    places = np.full(len(parts.clusters), len(members))
    places[members] = np.arange(len(members))
    longer = xp.concat([local, xp.zeros_like(local[:1])], axis=0)
    return xp.take(longer, beside(xp, places, local, xp.int32), axis=0)
