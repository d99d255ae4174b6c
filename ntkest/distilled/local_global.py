"""Local-global compression, and the global eigenvectors as its baseline.

Among all sets of s gradients Φᵀu, those of the first s eigenvectors of K̄ keep the largest share of its trace: the
baseline, which needs all examples for each. An eigenvector of a cluster needs its examples only. So local eigenvectors
come first, and of the global ones those that local ones do not cover, the gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, beside, eps, numbers
from ..predict.pivoted import take_rows
from .compression import Compression, checked_size
from .decomposition import Decomposition, decompose
from .truncation import checked_share, truncation_rank

COVERAGES = ("additive", "best", "unnormalised")

DEPENDENT = 1e-6
"""A column whose part outside the span of others is no longer than this, of its own length 1, is left out."""

VARIANCE, COVERED, WORTH = 0.95, 0.9, 0.5
"""Defaults of `local_global`: share of the trace and least coverage, and the least worth of a local direction."""

Pair = tuple[int, int]
"""A local eigenvector: its cluster, and its place there."""


def global_eigenvectors(features: Array | Decomposition, size: int) -> Compression:
    """The eigenvectors of the mean kernel with the largest eigenvalues: no others keep more of its trace.

    Parameters
    ----------
    features : array (m, O, k), or Decomposition
    size : int
        s. Fewer come back where K̄ has a lower rank to rounding.

    Returns
    -------
    Compression
        For O·m²·k multiplications and an eigendecomposition, about 10 m³.

    Raises
    ------
    InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError, ZeroKernelError
    """
    parts = features if isinstance(features, Decomposition) else decompose(features, 1)
    size = min(checked_size(size, len(parts.values)), parts.rank)
    return Compression(parts.xp.astype(parts.vectors[:, :size], parts.dtype), ("global",) * size)


def local_global(
    features: Array,
    size: int | None = None,
    *,
    variance: float | None = None,
    coverage_threshold: float | None = None,
    clusters: Any = 10,
    orthonormal: bool = True,
    coverage: str = "additive",
    seed: int = 0,
) -> Compression:
    """Local eigenvectors of clusters of examples, and the global ones that these do not cover.

    Without `size`, as many as two thresholds ask for: in each cluster the first local eigenvectors that carry
    `variance` of its trace, and of the global eigenvectors that carry the same share of tr K̄, those whose coverage is
    below `coverage_threshold`.

    With `size`, one after the other: the candidate is the local direction, or the global one, that keeps most of what
    is left of tr K̄, each less its part in the span of those before. The local one is taken if it keeps at least
    `coverage_threshold` of what the global one would. So 0 leaves no gaps, and towards 1 the baseline is approached.

    Parameters
    ----------
    features : array (m, O, k)
    size : int, optional
        s. Fewer come back only where K̄ has a lower rank to rounding.
    variance : float, optional
        τ_v, from 0 to 1, 0.95 by default; without `size` only.
    coverage_threshold : float, optional
        τ_g, from 0 to 1, by default 0.9 without `size` and 0.5 with it.
    clusters : int or integers (m,)
        H, for spectral clustering of K̄; or the cluster of each example, such as its label.
    orthonormal : bool
        Orthonormal columns of the same span, so that ridge regression on them is that on the projected kernel; else the
        eigenvectors themselves.
    coverage : {"additive", "best", "unnormalised"}
        Of a global eigenvector u by local ones U_h on the examples I_h: Σ_h ‖U_hᵀu[I_h]‖², its share in their span;
        max_h ‖U_hᵀu[I_h]‖²/‖u[I_h]‖²; or max_h ‖U_hᵀu[I_h]‖². With `size` it is reported, and decides nothing.
    seed : int
        Of the clustering.

    Returns
    -------
    Compression
        For O·m²·k multiplications and two eigendecompositions, about 20 m³; with `size` some 10 m·s² more.

    Raises
    ------
    InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError, ZeroKernelError
    """
    parts = decompose(features, clusters, seed)
    return compress(
        parts,
        size,
        variance=variance,
        coverage_threshold=coverage_threshold,
        orthonormal=orthonormal,
        coverage=coverage,
    )


def compress(
    parts: Decomposition,
    size: int | None = None,
    *,
    variance: float | None = None,
    coverage_threshold: float | None = None,
    orthonormal: bool = True,
    coverage: str = "additive",
) -> Compression:
    """`local_global` of features that are taken apart already: several sizes or thresholds for one decomposition."""
    if coverage not in COVERAGES:
        raise InvalidValueError(f"coverage= takes one of {', '.join(COVERAGES)}, not {coverage!r}")
    if not isinstance(orthonormal, bool):
        raise InvalidTypeError(f"orthonormal= takes True or False, not {orthonormal!r}")
    if size is not None and variance is not None:
        raise InvalidValueError("give size= or variance=, not both: each says how many gradients are made")
    default = COVERED if size is None else WORTH
    threshold = checked_share("coverage_threshold", default if coverage_threshold is None else coverage_threshold)
    if size is None:
        share = checked_share("variance", VARIANCE if variance is None else variance)
        found = _by_thresholds(parts, share, threshold, coverage)
    else:
        found = _by_size(parts, checked_size(size, len(parts.values)), threshold)
    basis, raw, pairs, kinds, first = found
    vectors = parts.xp.astype(basis if orthonormal else raw, parts.dtype)
    return Compression(vectors, kinds, parts.clusters, covered(parts, pairs, first, coverage))


def covered(parts: Decomposition, pairs: list[Pair], first: int, kind: str) -> np.ndarray:
    """How much of each of the first global eigenvectors these local ones cover; see `local_global`."""
    xp, inside, within = parts.xp, [], []
    for h, members in enumerate(parts.members):
        rows = take_rows(xp, parts.vectors[:, :first], members)
        local = take_rows(xp, parts.local_vectors[h].T, np.asarray([i for g, i in pairs if g == h], dtype=int))
        inside.append(numbers(xp.sum((local @ rows) ** 2, axis=0)))
        within.append(numbers(xp.sum(rows * rows, axis=0)))
    shares, norms = np.asarray(inside), np.asarray(within)
    if kind == "best":
        shares = shares / np.where(norms > 0, norms, 1)
    found: np.ndarray = shares.sum(axis=0) if kind == "additive" else shares.max(axis=0)
    return found


Found = tuple[Array, Array, list[Pair], tuple[str, ...], int]
"""Orthonormal columns, the eigenvectors as they are, the local ones, the kinds, and r_g."""


def _by_thresholds(parts: Decomposition, share: float, threshold: float, kind: str) -> Found:
    """All local eigenvectors first, which are orthonormal, then the gaps that do not depend on them."""
    xp = parts.xp
    ranks = [truncation_rank(values, 1 - share) for values in parts.local_values]
    pairs = [(h, i) for h, rank in enumerate(ranks) for i in range(rank)]
    first = truncation_rank(parts.values, 1 - share)
    gaps = np.flatnonzero(covered(parts, pairs, first, kind) < threshold)
    local, wide = parts.padded(pairs), take_rows(xp, parts.vectors.T, gaps).T
    outside = wide
    for _ in range(2):
        outside = outside - local @ (local.T @ outside)
    least = _dependent(xp, parts.kernel)

    def longest(squares: Array) -> int | None:
        lengths = numbers(xp.sum(squares, axis=0))
        return int(np.argmax(lengths)) if len(lengths) and np.max(lengths) > least else None

    basis, picked = _eliminate(xp, outside, longest, len(gaps))
    raw = xp.concat([local, take_rows(xp, wide.T, picked).T], axis=1)
    return xp.concat([local, basis], axis=1), raw, pairs, ("local",) * len(pairs) + ("gap",) * len(picked), first


def _by_size(parts: Decomposition, size: int, threshold: float) -> Found:
    """One candidate after the other, in coordinates of U, where K̄ is diagonal."""
    xp, first = parts.xp, min(size, parts.rank)
    pairs = [(h, i) for h, values in enumerate(parts.local_values) for i in range(np.count_nonzero(values))]
    pairs = sorted(pairs, key=lambda pair: -parts.local_values[pair[0]][pair[1]])[: 2 * size]
    local = parts.padded(pairs)
    candidates = xp.concat([local, parts.vectors[:, :first]], axis=1)
    weights = beside(xp, parts.values / parts.values[0], candidates)
    floor, least = len(parts.values) * eps(xp, candidates), _dependent(xp, candidates)

    def worthiest(squares: Array) -> int | None:
        lengths = numbers(xp.sum(squares, axis=0))
        kept = numbers(weights @ squares) / np.where(lengths > least, lengths, np.inf)
        here, there = int(np.argmax(kept[: len(pairs)])), len(pairs) + int(np.argmax(kept[len(pairs) :]))
        best = here if kept[here] >= threshold * kept[there] else there
        return best if kept[best] > floor else None

    basis, picked = _eliminate(xp, parts.vectors.T @ candidates, worthiest, first)
    kinds = tuple("local" if i < len(pairs) else "gap" for i in picked)
    raw = take_rows(xp, candidates.T, picked).T
    return parts.vectors @ basis, raw, [pairs[i] for i in picked if i < len(pairs)], kinds, first


def _eliminate(
    xp: ModuleType, columns: Array, choose: Callable[[Array], int | None], most: int
) -> tuple[Array, np.ndarray]:
    """Pivoted Gram-Schmidt: an orthonormal basis (m, n) of chosen columns, and which they are.

    `choose` sees the squares of what is left of each column, and ends it by None.
    """
    left = columns
    basis: list[Array] = []
    picked: list[int] = []
    while len(picked) < most and (j := choose(left * left)) is not None:
        column = left[:, j]
        basis.append(column / xp.sum(column * column) ** 0.5)
        picked.append(j)
        left = left - basis[-1][:, None] * (basis[-1] @ left)
    if not basis:
        return columns[:, :0], np.zeros(0, dtype=int)
    return xp.linalg.qr(xp.stack(basis, axis=1))[0], np.asarray(picked)  # orthonormal again to rounding


def _dependent(xp: ModuleType, array: Array) -> float:
    """The square of a length that counts as none: `DEPENDENT`, or what a dtype of fewer digits can tell."""
    return float(max(DEPENDENT, eps(xp, array) ** 0.5) ** 2)
