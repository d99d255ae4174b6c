"""How global eigenvectors of the mean kernel and local ones of clusters go together, and what a compression keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..linearization import ShapeError, beside, number, numbers
from ..predict.pivoted import take_rows
from .compression import Compression, checked_size
from .decomposition import Decomposition
from .truncation import checked_share, truncation_rank


@dataclass(frozen=True)
class Containment:
    """How much of each cluster's kernel lies along each global eigenvector; made by `containment`."""

    heat: np.ndarray
    """(H, r): (u_j|_I)ᵀ K̄_I (u_j|_I) / tr K̄_I of cluster I by global eigenvector j."""
    weights: np.ndarray
    """(H,): tr K̄_I / tr K̄."""

    @property
    def curves(self) -> np.ndarray:
        """(H, r): the mean over local eigenvectors of ‖their part in the first 1 … r global ones‖², weighted by λ.

        Σ_i λ_i (v_iᵀ u_j|_I)² is the quadratic form of `heat`, so this is its running sum.
        """
        curves: np.ndarray = np.cumsum(self.heat, axis=1)
        return curves

    @property
    def overall(self) -> np.ndarray:
        """(r,): the same for the local eigenvectors of all clusters."""
        overall: np.ndarray = self.weights @ self.curves
        return overall

    @property
    def gap(self) -> float:
        """The share of local variance that the r global eigenvectors leave out."""
        return float(1 - self.overall[-1])


def containment(parts: Decomposition, count: int | None = None, variance: float = 0.95) -> Containment:
    """The variance of clusters in the first global eigenvectors: heat map, containment and the gap between both.

    Parameters
    ----------
    parts : Decomposition
    count : int, optional
        r; by default as many as carry `variance` of tr K̄.
    variance : float

    Returns
    -------
    Containment
        For r·m²/H multiplications.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    xp = parts.xp
    if count is None:
        count = truncation_rank(parts.values, 1 - checked_share("variance", variance))
    vectors = parts.vectors[:, : checked_size(count, len(parts.values))]
    heat, weights = [], []
    for h, members in enumerate(parts.members):
        rows, K = take_rows(xp, vectors, members), parts.block(h)
        trace = number(xp.linalg.trace(K))
        heat.append(numbers(xp.sum(rows * (K @ rows), axis=0)) / (trace or 1.0))
        weights.append(trace)
    return Containment(np.asarray(heat), np.asarray(weights) / sum(weights))


def kept_variance(parts: Decomposition, compression: Compression) -> float:
    """The share tr ΠK̄ / tr K̄ for the projector Π to the span of the vectors: at most what the global eigenvectors keep.

    Raises
    ------
    ShapeError
    """
    xp, vectors = parts.xp, compression.vectors
    if vectors.shape[0] != len(parts.values):
        raise ShapeError(f"the compression is of {vectors.shape[0]} examples, the decomposition of {len(parts.values)}")
    if isinstance(vectors, np.ndarray):
        vectors = beside(xp, vectors, parts.kernel)
    basis = xp.linalg.qr(xp.astype(vectors, parts.kernel.dtype))[0]
    return number(xp.sum(basis * (parts.kernel @ basis))) / number(xp.linalg.trace(parts.kernel))
