"""How many directions carry a kernel: spectra, truncation ranks, and the redundancy of data that these show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, numbers
from .features import check_features, of_class, unit
from .kernels import mean_kernel


def checked_share(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise InvalidTypeError(f"{name}= takes a number from 0 to 1, not {value!r}")
    if not 0 <= value <= 1:
        raise InvalidValueError(f"{name}= takes a number from 0 to 1, not {value!r}")
    return float(value)


def truncation_rank(values: np.ndarray, share: float = 0.05) -> int:
    """r(ε), the least r with λ₁ + … + λ_r ≥ (1 - ε) Σ λ; eigenvalues descend, and `share` is ε. 0 for a zero kernel."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return int(np.argmax(sums >= (1 - share) * sums[-1] * (1 - 1e-12)))


@dataclass(frozen=True)
class Redundancy:
    """How many of m gradients a class needs; made by `data_redundancy`, prints as a table."""

    share: float
    """ε, the share of the trace that may be lost."""
    count: int
    """m."""
    class_spectra: np.ndarray
    """(O, m): eigenvalues of each K_c, descending."""
    mean_spectrum: np.ndarray
    """(m,): of their mean K̄."""
    pooled_spectrum: np.ndarray
    """(min(m·O, k),): of the gradients of all outputs together, blocks between classes included."""

    @property
    def ranks(self) -> np.ndarray:
        """r(ε) of each class (O,)."""
        return np.asarray([truncation_rank(values, self.share) for values in self.class_spectra])

    @property
    def mean_rank(self) -> int:
        """r(ε) of K̄: how many weightings of examples serve all classes."""
        return truncation_rank(self.mean_spectrum, self.share)

    @property
    def pooled_rank(self) -> int:
        """r(ε) of all gradients together."""
        return truncation_rank(self.pooled_spectrum, self.share)

    @property
    def ratios(self) -> np.ndarray:
        """The redundancy m / r(ε) of each class (O,), infinite where the kernel is zero."""
        return np.asarray([self.count / rank if rank else math.inf for rank in self.ranks])

    @property
    def pooled_ratio(self) -> float:
        """m·O / r(ε) of all gradients together."""
        return len(self.ranks) * self.count / self.pooled_rank

    def __str__(self) -> str:
        lines = [f"{'':<14}{'gradients':>10}{f'r({self.share:g})':>10}{'redundancy':>12}"]
        rows = [(f"class {c}", self.count, rank) for c, rank in enumerate(self.ranks)]
        rows += [("mean of all", self.count, self.mean_rank)]
        rows += [("all pooled", self.count * len(self.ranks), self.pooled_rank)]
        lines += [f"{name:<14}{n:>10}{r:>10}{n / r if r else math.inf:>12.1f}" for name, n, r in rows]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; the redundancy of a class without a kernel is None."""
        return {
            "share": self.share,
            "count": self.count,
            "ranks": self.ranks.tolist(),
            "ratios": [ratio if math.isfinite(ratio) else None for ratio in self.ratios],
            "mean_rank": self.mean_rank,
            "pooled_rank": self.pooled_rank,
            "pooled_ratio": self.pooled_ratio,
        }


def data_redundancy(features: Array, share: float = 0.05) -> Redundancy:
    """Spectra and truncation ranks of class kernels, of their mean, and of all gradients together.

    A class has data redundancy (m / r(ε), ε): so many times fewer gradients would carry all but ε of its kernel.

    Parameters
    ----------
    features : array (m, O, k)
    share : float
        ε.

    Returns
    -------
    Redundancy
        For O·m²·k multiplications and the eigenvalues of O + 1 matrices m × m; and of one with min(m·O, k) rows, for
        m·O·k times that.

    Raises
    ------
    InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError, ZeroKernelError
    """
    xp = check_features(features)
    share, size = checked_share("share", share), unit(xp, features)
    count, outputs, k = features.shape
    classes = [of_class(xp, features, c, size) for c in range(outputs)]
    if count * outputs <= k:
        rows = xp.concat(classes, axis=0)
        pooled = rows @ rows.T
    else:
        pooled = sum(phi.T @ phi for phi in classes)
    return Redundancy(
        share,
        int(count),
        np.stack([_spectrum(xp, phi @ phi.T, size) for phi in classes]),
        _spectrum(xp, mean_kernel(features, size), size),
        _spectrum(xp, pooled, size),
    )


def _spectrum(xp: Any, K: Array, size: float) -> np.ndarray:
    """Eigenvalues, descending and none negative, on the host, where float64 holds their true size."""
    found: np.ndarray = size**2 * np.maximum(numbers(xp.linalg.eigvalsh(K))[::-1], 0)
    return found
