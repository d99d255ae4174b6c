"""What is integrated over the spectrum: sums of a function of eigenvalues, and their entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from array_api_compat import array_namespace

from ..estimators import Moment
from ..inference import Quantity
from ..linearization import Array, ZeroKernelError
from .quadrature import Function, evaluated
from .results import mean_of
from .sampler import Samples

Found = tuple[Quantity, tuple[Moment, ...], float]
"""A quantity, its moments on the host, and its error from truncation."""


class Integrand(Protocol):
    """A quantity of the spectrum."""

    @property
    def weighted(self) -> bool:
        """Whether quadrature starts from images of probes."""
        ...

    def exactly(self, values: np.ndarray) -> tuple[Quantity, tuple[Moment, ...]]:
        """From all M eigenvalues."""
        ...

    def sampled(self, samples: Samples) -> Found:
        """From quadrature."""
        ...

    def influence(self, samples: Samples) -> Function | None:
        """What one eigenvalue adds, up to a factor; None where leading eigenvalues cannot be taken out."""
        ...


@dataclass(frozen=True)
class Sum:
    """Σ f(λ) and a constant."""

    name: str
    f: Function
    constant: float = 0.0
    weighted: bool = False

    def exactly(self, values: np.ndarray) -> tuple[Quantity, tuple[Moment, ...]]:
        """From all M eigenvalues."""
        total = self.constant + float(np.sum(evaluated(self.f, values)))
        return self._quantity(False), (Moment(np.asarray([total])),)

    def sampled(self, samples: Samples) -> Found:
        """The middle of Gauss and Gauss–Radau rules, and half their distance."""
        operator = samples.operator
        unseen = operator.outputs - operator.size(operator.left)  # zeros that probes do not see
        zero = float(evaluated(self.f, np.zeros(1), strict=unseen > 0)[0])
        if math.isfinite(zero):
            taus, errors = middle(samples, self.f)
        else:
            taus, coarse = (samples.gauss(fewer).integrals(self.f) for fewer in (0, 1))
            errors = np.abs(taus - coarse)
        constant, truncation = self.constant + (unseen * zero if unseen else 0.0), float(np.mean(errors))
        if samples.known is not None:
            sums, gaps = middle(samples.known, self.f)
            constant, truncation = constant + float(np.sum(sums)), truncation + float(np.sum(gaps))
        positive = bool(np.all(taus > 0)) and constant >= 0
        return self._quantity(positive), (mean_of(taus, constant),), truncation

    def influence(self, samples: Samples) -> Function | None:
        """F itself; the integral over a leading vector needs f(0) for its bounds."""
        zero = float(evaluated(self.f, np.zeros(1), strict=False)[0])
        return self.f if math.isfinite(zero) else None

    def _quantity(self, positive: bool) -> Quantity:
        return Quantity(self.name, (("function", 0),), _same, power=1.0 if positive else None)


@dataclass(frozen=True)
class Entropy:
    """exp of the entropy of λ/Σλ, from Σλ log λ and Σλ."""

    weighted: bool = True

    def exactly(self, values: np.ndarray) -> tuple[Quantity, tuple[Moment, ...]]:
        """From all M eigenvalues."""
        total = _positive(float(np.sum(values)))
        return self._quantity(), (Moment(np.asarray([np.sum(_log_times(values / total))])), Moment(np.asarray([1.0])))

    def sampled(self, samples: Samples) -> Found:
        """From weights w λ, relative to Σλ, so that float32 holds all."""
        total = self._total(samples)
        unit = total * samples.operator.scale
        masses = samples.masses / total
        fine, coarse = (
            samples.gauss(fewer).integrals(lambda x: np.log(np.maximum(x / unit, 1e-300))) / total for fewer in (0, 1)
        )
        logs, mass, error = 0.0, 0.0, abs(float(np.mean(fine - coarse)))
        if samples.known is not None:
            sums, gaps = middle(samples.known, lambda x: _log_times(x / unit))
            logs, error = float(np.sum(sums)), error + float(np.sum(gaps))
            mass = float(np.sum(samples.known.alphas**2)) / total
        rank = math.exp(-logs - float(np.mean(fine)))  # Σλ is 1 in this unit, and its log 0
        return self._quantity(), (mean_of(fine, logs), mean_of(masses, mass)), rank * error

    def influence(self, samples: Samples) -> Function | None:
        """The change of H, p (log p + H)."""
        unit = self._total(samples) * samples.operator.scale
        (logs, _) = self.sampled(samples)[1]
        return _EntropyChange(unit, -float(logs.value[0]))

    def _total(self, samples: Samples) -> float:
        """The estimate of Σλ, of the scaled operator."""
        known = 0.0 if samples.known is None else float(np.sum(samples.known.alphas**2))
        return _positive(known + float(np.mean(samples.masses)))

    def _quantity(self) -> Quantity:
        return Quantity("entropic_rank", (("entropy", 0), ("mass", 0)), _exp_entropy, debias="logarithm")


def middle(samples: Samples, f: Function) -> tuple[np.ndarray, np.ndarray]:
    """The middle of both rules for each probe, and half their distance."""
    low, high = samples.radau().integrals(f), samples.gauss().integrals(f)
    return (low + high) / 2, np.abs(high - low) / 2


@dataclass(frozen=True)
class _EntropyChange:
    unit: float
    entropy: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        p = values / self.unit
        return _log_times(p) + p * self.entropy


def _log_times(p: np.ndarray) -> np.ndarray:
    """P log p, and 0 at 0."""
    logs: np.ndarray = p * np.log(np.where(p > 0, p, 1.0))
    return logs


def _positive(total: float) -> float:
    if total == 0:
        raise ZeroKernelError("the kernel is zero, so its entropic rank is not defined")
    return total


def _same(x: Array) -> Array:
    return x


def _exp_entropy(logs: Array, mass: Array) -> Array:
    """exp(log b - a/b) with a = Σλ log λ and b = Σλ."""
    xp: Any = array_namespace(mass)
    return xp.exp(xp.log(mass) - logs / mass)
