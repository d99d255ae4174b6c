"""From samples of block traces to values with error bars, entry by entry.

Only the mean and the sum of squared deviations of each entry are kept, never the samples: two numbers a block, however
many probes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..estimators import Problem
from ..linearization import Array, accumulator, beside, safe_root


@dataclass(frozen=True)
class Spread:
    """Running mean and sum of squared deviations of m samples."""

    count: int
    """m."""
    mean: Array
    """(rows, n + 1); the last column is the sum over blocks."""
    squares: Array
    """(rows, n + 1): Σ (sample - mean)²."""


def spread_of(xp: ModuleType, named: bool, samples: Array) -> tuple[Array, Array]:
    """Mean and squared deviations of samples (m, parts, n), with the whole before the parts and the sum over blocks."""
    if named:
        samples = xp.concat([xp.sum(samples, axis=1, keepdims=True), samples], axis=1)
    total = xp.sum(samples, axis=2, keepdims=True, dtype=accumulator(xp, samples))
    (mean, squares), (mean_of_total, squares_of_total) = (_moments(xp, array) for array in (samples, total))
    return xp.concat([mean, mean_of_total], axis=1), xp.concat([squares, squares_of_total], axis=1)


def _moments(xp: ModuleType, samples: Array) -> tuple[Array, Array]:
    """Added in the accumulator's dtype, without a copy of all samples in it."""
    wide = accumulator(xp, samples)
    mean = xp.sum(samples, axis=0, dtype=wide) / samples.shape[0]
    gap = samples - xp.astype(mean, samples.dtype, copy=False)[None, ...]
    return mean, xp.sum(gap * gap, axis=0, dtype=wide)


def combine(problem: Problem, old: Spread, new: Spread) -> Spread:
    """Both sets of samples as one (Chan, Golub, LeVeque, Am. Stat. 1983)."""
    count = old.count + new.count
    share = beside(problem.xp, [new.count / count, old.count * new.count / count], old.mean)
    merged = problem.compiled(_combine)((old.mean, old.squares), (new.mean, new.squares), share)
    return Spread(count, *merged)


def _combine(old: tuple[Array, Array], new: tuple[Array, Array], share: Array) -> tuple[Array, Array]:
    gap = new[0] - old[0]
    return old[0] + gap * share[0], old[1] + new[1] + gap * gap * share[1]


@dataclass(frozen=True)
class Finish:
    """From what a run has gathered to what a result holds, (rows, n + 1) each; array-only."""

    xp: ModuleType
    dtype: Any
    """Of the results."""
    scale: float
    """The power of two that images were scaled down by."""
    floor: float
    """Relative rounding floor of errors."""
    count: int
    """The number of samples; 0 where all is exact."""

    def __call__(self, known: Array | None, mean: Array | None, squares: Array | None) -> tuple[Array, ...]:
        """Value and standard error; and where there are samples, the exact share and the degrees of freedom."""
        xp, m = self.xp, self.count
        if mean is None or squares is None:
            assert known is not None
            return self._in_range(known), self._in_range(xp.abs(known) * self.floor)
        value = mean if known is None else known + mean
        error = safe_root(xp, squares / (m * (m - 1)) + (self.floor * value) ** 2)
        some = value > 0
        share = mean * 0 if known is None else xp.where(some, known / xp.where(some, value, value * 0 + 1), mean * 0)
        return self._in_range(value), self._in_range(error), share, degrees_of_freedom(xp, mean, squares, m)

    def _in_range(self, column: Array) -> Array:
        """In the dtype of results, where what leaves its range is infinite (and not NumPy's to warn about)."""
        column = column * self.scale * self.scale
        beyond = self.xp.abs(column) > float(self.xp.finfo(self.dtype).max)
        return self.xp.astype(self.xp.where(beyond, column * 0 + float("inf"), column), self.dtype, copy=False)


def degrees_of_freedom(xp: ModuleType, mean: Array, squares: Array, m: int) -> Array:
    """ν, such that means of m squared norms go like multiples of χ²_ν, at a lower confidence limit.

    One squared norm of a sign probe's image has 2 mean²/variance degrees of freedom, r (Satterthwaite 1946), which are
    at least 1: the variance is at most 2 ‖G‖_F² ≤ 2 tr(G)². ν = m·max(1, r̂ exp(-se(log r̂))), where the standard error
    is that of samples of χ²_r: the delta method gives Var(log r̂) = 2/(m - 1) + 4/(r m).
    """
    info = xp.finfo(mean.dtype)
    variance = squares / (m - 1) + mean * mean * float(info.eps) ** 2 + float(info.smallest_normal) * 1e3
    r = 2.0 * mean * mean / variance
    one = r * 0 + 1
    wobble = (2.0 / (m - 1) + 4.0 / (m * xp.maximum(r, one))) ** 0.5
    return m * xp.maximum(r * xp.exp(-wobble), one)
