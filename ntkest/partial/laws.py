"""Sampling laws of many entries at once; on the host, where SciPy has the quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..estimate import NORMAL_FROM, Exactly
from ..linearization import Array, numbers


@dataclass(frozen=True)
class ChiSquares:
    """Each entry an exact share plus a multiple of χ²_ν, as in `ntkest.estimate.ScaledChiSquare`."""

    share: Array
    """The exact part of each entry, relative to the whole."""
    degrees: Array
    """ν, the degrees of freedom of the rest of each entry."""

    def bounds(self, value: np.ndarray, std_error: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Intervals from the quantiles of χ², or of the normal law where ν is beyond them."""
        from scipy.special import chdtri, ndtri

        share, nu = numbers(self.share), numbers(self.degrees)
        z = float(ndtri(0.5 + level / 2)) * np.sqrt(2 / nu)

        def end(tail: float, normal: np.ndarray) -> np.ndarray:
            quantile = chdtri(np.minimum(nu, NORMAL_FROM), tail)
            return np.asarray(value * (share + (1 - share) * np.where(nu > NORMAL_FROM, normal, nu / quantile)))

        return end(0.5 - level / 2, 1 - z), end(0.5 + level / 2, 1 + z)


@dataclass(frozen=True)
class Students:
    """Each entry a mean of samples of either sign."""

    degrees: int

    def bounds(self, value: np.ndarray, std_error: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Student's t intervals; below a positive value they end at 0, for no trace is negative."""
        from scipy.special import stdtrit

        t = float(stdtrit(self.degrees, 0.5 + level / 2))
        low = value - t * std_error
        return np.where(value > 0, np.maximum(low, 0.0), low), value + t * std_error


EntryLaw = Exactly | ChiSquares | Students
