"""What a sketch of a few samples says about larger ones: a spectrum in its likeness, and the errors to expect on it.

A pilot of q two-sided samples shows the largest eigenvalues, and of what it leaves the trace and the norm. To the
former a tail is fitted that has the latter: a power of the index or an exponential of it, whichever goes on better
where the Ritz values end. On that spectrum the errors of all estimators follow from deterministic equivalents of random
projections: with a_j = λ_j/(λ_j + γ), Σ a_j = q for a projection on K^½Ω (XNysTrace), a_j = λ_j²/(λ_j² + γ) for one on
KΩ (XTrace), residual R = (I - Π) K (I - Π):

    E tr R = Σ λ_j (1 - a_j),    E ‖R‖_F² = Σ λ_j² (1 - a_j)² + (Σ λ_j a_j (1 - a_j))² / (q - Σ a_j²).

Only used to choose and to plan: no estimate depends on it otherwise. References: Dereziński, Liang, Liao, Mahoney,
"Precise expressions for random projections", NeurIPS 2020 (first order); Bach, "High-dimensional analysis of double
descent for linear regression with random projections", SIAM J. Math. Data Sci. 2024 (second order).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

POINTS = 300
"""Points of a tail's grid."""

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.15, 0.22, 0.35, 0.6, 1.0)


@dataclass(frozen=True)
class Sketch:
    """What a pilot saw, in plain numbers."""

    ritz: np.ndarray
    """Eigenvalues of W, descending."""
    trace: float
    residual: float | None
    """‖R‖_F² for q - 2 samples, where it is known."""
    dimension: int

    @property
    def samples(self) -> int:
        """The q of the pilot."""
        return len(self.ritz)


@dataclass(frozen=True)
class Errors:
    """Relative standard errors to expect."""

    trace: float
    square: float
    """Of ‖K‖_F²."""
    rank: float
    """Of tr(K)²/‖K‖_F²."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues with multiplicities."""

    values: np.ndarray
    counts: np.ndarray
    dimension: int

    @property
    def trace(self) -> float:
        """Σ λ."""
        return float(self.counts @ self.values)

    @property
    def square(self) -> float:
        """Σ λ²."""
        return float(self.counts @ self.values**2)

    def leverages(self, q: float, power: int) -> np.ndarray:
        """a_j with Σ a_j = q; ones where q exceeds the rank."""
        weights: np.ndarray = (self.values / self.values.max()) ** power
        if q >= self.counts[weights > 0].sum():
            return np.ones_like(weights)
        low, high = -200.0, 50.0
        for _ in range(48):
            middle = (low + high) / 2
            if self.counts @ (weights / (weights + math.exp(middle))) > q:
                low = middle
            else:
                high = middle
        a: np.ndarray = weights / (weights + math.exp((low + high) / 2))
        return a

    def residual(self, q: float, power: int) -> tuple[float, float, float]:
        """E tr R, E ‖R‖_F² and the participation ratio of R², for q samples."""
        a = self.leverages(q, power)
        left = self.values * (1 - a)
        mixed = (self.counts @ (left * a)) ** 2 / max(q - self.counts @ a**2, 1e-9)
        trace, square = float(self.counts @ left), float(self.counts @ left**2 + mixed)
        fourth = self.counts @ left**4
        spread = float(self.counts @ left**2) ** 2 / fourth if fourth > 0 else 1.0
        return trace, square, min(max(spread, q / 4, 1.0), max(self.dimension - q, 1.0))

    def fluctuation(self, total: float, square: float, samples: float, left: float) -> float:
        """Standard deviation of a mean of sphere probes in `left` dimensions of a matrix with this trace and norm."""
        return math.sqrt(2.0 / samples * max(square - total * total / max(left, 1.0), 1e-4 * square))

    def nystrom(self, q: float) -> Errors:
        """From q XNysTrace samples."""
        total, square, _ = self.residual(q, 1)
        left = self.dimension - q + 1
        a = self.leverages(q, 1)
        rest = self.values * (1 - a)
        change = 2 * self.values * rest - rest**2
        error = self.fluctuation(float(self.counts @ change), float(self.counts @ change**2), q, left)
        return _independent(self.fluctuation(total, square, q, left) / self.trace, error / self.square)

    def range(self, q: float) -> Errors:
        """From q XTrace samples."""
        total, square, spread = self.residual(q, 2)
        left = self.dimension - q + 1
        return _independent(
            self.fluctuation(total, square, q, left) / self.trace,
            self.fluctuation(square, square**2 / spread, q, left) / self.square,
        )

    def two_sided(self, probes: float) -> Errors:
        """From means of ωᵀKω and ‖Kω‖²."""
        fourth = float(self.counts @ self.values**4)
        return _independent(
            self.one_sided(probes).trace, self.fluctuation(self.square, fourth, probes, self.dimension) / self.square
        )

    def deflated(self, probes: float, power: int = 2) -> Errors:
        """From Hutch++, or with power 1 from Nyström++, with half as many columns as probes."""
        total, square, spread = self.residual(max(probes / 2, 1), power)
        linear, pairs = 8 / probes / spread, 4 / (probes * max(probes - 1, 1))
        return _independent(
            self.fluctuation(total, square, probes, self.dimension) / self.trace,
            math.sqrt(linear + pairs) * square / self.square,
        )

    def one_sided(self, probes: float) -> Errors:
        """From one-sided probes."""
        trace = self.fluctuation(self.trace, self.square, probes, self.dimension) / self.trace
        cube = float(self.counts @ self.values**3) / (self.trace * self.square) - 1 / self.dimension
        fourth = float(self.counts @ self.values**4) / self.square**2 - 1 / self.dimension
        linear, pairs = 8 / probes * max(fourth, 0.0), 4 / (probes * max(probes - 1, 1))
        both = 4 * trace**2 + linear - 16 / probes * cube  # the same probes move both
        return Errors(trace, math.sqrt(linear + pairs), math.sqrt(max(both, 0.0) + pairs))


def fit(sketch: Sketch) -> Spectrum:
    """The upper half of the Ritz values, and of all tails with the mass that is left the one that fits best."""
    head = sketch.ritz[: max(1, (sketch.samples + 1) // 2)]
    h, rest = len(head), max(sketch.trace - float(head.sum()), 0.0)
    tails = sketch.dimension - h
    if tails <= 0 or rest <= 1e-9 * sketch.trace:
        return Spectrum(head, np.ones(h), sketch.dimension)
    index, counts = _grid(tails)
    best, smallest = None, math.inf
    for shape in [*(_power(index + h, b) for b in EXPONENTS), *(np.exp(-rate * (index - 1)) for rate in RATES)]:
        tail = shape * (rest / (counts @ shape))
        spectrum = Spectrum(np.concatenate([head, tail]), np.concatenate([np.ones(h), counts]), sketch.dimension)
        misfit = 0.0
        if sketch.residual is not None:
            _, square, _ = spectrum.residual(max(sketch.samples - 2, 1), 1)
            least = 1e-30 * sketch.trace**2
            misfit = math.log(max(square, least) / max(sketch.residual, least)) ** 2
        jump = math.log(max(tail[0], 1e-300) / head[-1])
        misfit += (0.5 * max(jump, 0.0)) ** 2 + (0.1 * min(jump, 0.0)) ** 2
        if misfit < smallest:
            best, smallest = spectrum, misfit
    assert best is not None
    return best


def _independent(trace: float, square: float) -> Errors:
    return Errors(trace, square, math.hypot(2 * trace, square))


def _power(index: np.ndarray, exponent: float) -> np.ndarray:
    shape: np.ndarray = (index / index[0]) ** -exponent
    return shape


def _grid(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices 1 … count, thinned out logarithmically, with how many each stands for."""
    if count <= POINTS:
        return np.arange(1, count + 1, dtype=float), np.ones(count)
    edges = np.unique(np.round(np.geomspace(1, count + 1, POINTS)).astype(int)).astype(float)
    counts = np.diff(edges)
    return (edges[:-1] + edges[1:] - 1) / 2, counts
