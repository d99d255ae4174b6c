"""Operators on which estimators compete: K = J Jᵀ with a spectrum of choice, and the kernels of trained networks.

Imports NumPy alone, so that every environment of the benchmark builds the same operators.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZE = 2000
"""Outputs of every operator."""

NETWORKS = {"digits-mlp": 200, "digits-convnet": 200, "digits-gru": 25}
"""Trained networks, whose Jacobians `benchmarks.trained` computes once, and the examples that they are taken at."""


@dataclass(frozen=True)
class Operator:
    """An explicit Jacobian (n, P), and what is true of K = J Jᵀ."""

    name: str
    jacobian: np.ndarray
    examples: int | None = None
    """The number of examples that the outputs come from, in turn, if ntkest is to be told."""

    @functools.cached_property
    def kernel(self) -> np.ndarray:
        """K (n, n), symmetric to the last bit."""
        K = self.jacobian @ self.jacobian.T
        return (K + K.T) / 2

    @functools.cached_property
    def truth(self) -> dict[str, float]:
        """Trace, Frobenius norm and effective rank by their definitions."""
        trace, norm = float(np.trace(self.kernel)), float(np.linalg.norm(self.kernel))
        rank = (trace / norm) ** 2 if norm else 0.0
        return {"trace": trace, "frobenius_norm": norm, "effective_rank": rank}

    def scaled(self, factor: float) -> Operator:
        """The operator factor · K."""
        return Operator(f"{self.name} x {factor:g}", self.jacobian * factor**0.5)


def _index(n: int) -> np.ndarray:
    return np.arange(1.0, n + 1)


def _steps(n: int, *stairs: tuple[int, float]) -> np.ndarray:
    """Plateaus of (width, height); the last one takes what is left."""
    values = np.full(n, stairs[-1][1])
    start = 0
    for width, height in stairs[:-1]:
        values[start : start + width] = height
        start += width
    return values


def _marchenko_pastur(n: int, ratio: float = 0.5) -> np.ndarray:
    """Quantiles of the law of the eigenvalues of X Xᵀ/P, X (n, P) of independent normal numbers, n/P = `ratio`."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    # Half circle coordinates: no square-root edges are left to integrate over.
    angle = np.linspace(0, np.pi, 20001)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    density = np.sin(angle) ** 2 / x
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp((_index(n) - 0.5) / n, mass / mass[-1], x)[::-1]


Spectrum = Callable[[int], np.ndarray]

SPECTRA: dict[str, Spectrum] = {
    "exponential": lambda n: 0.9 ** _index(n),
    "power-1": lambda n: 1 / _index(n),
    "power-2": lambda n: 1 / _index(n) ** 2,
    "step": lambda n: _steps(n, (50, 1.0), (0, 1e-3)),
    "flat": lambda n: np.linspace(3, 1, n),
    "rank-5": lambda n: _steps(n, (5, 1.0), (0, 0.0)),
    "spiked": lambda n: np.concatenate([np.linspace(100, 10, 10), np.ones(n - 10)]),
}
"""Spectra on which methods may be tuned."""

HELD_OUT: dict[str, Spectrum] = {
    "two-step": lambda n: _steps(n, (10, 1.0), (n // 20, 0.05), (0, 1e-4)),
    "power-0.5": lambda n: _index(n) ** -0.5,
    "exp-sqrt": lambda n: np.exp(-np.sqrt(_index(n))),
    "marchenko-pastur": _marchenko_pastur,
    "log-uniform": lambda n: np.logspace(0, -6, n),
    "half-rank": lambda n: _steps(n, (n // 2, 1.0), (0, 0.0)),
    "noise-floor": lambda n: _index(n) ** -1.5 + 1e-3,
}
"""Spectra that no method was tuned on, reported apart."""

NAMES = (*SPECTRA, *NETWORKS, *HELD_OUT)


def operator(name: str, size: int, folder: Path) -> Operator:
    """The operator of that name with `size` outputs; Jacobians of networks are read from `folder`, in whole examples.

    Bases are dense random orthogonal matrices, drawn anew for every spectrum: coordinates mean nothing, so that no
    kind of probe is favoured by them.
    """
    if name in NETWORKS:
        each = SIZE // NETWORKS[name]
        jacobian = np.load(folder / f"{name}.npy")[: size // each * each]
        return Operator(name, jacobian)  # that outputs come from separate examples is told to nobody
    values = {**SPECTRA, **HELD_OUT}[name](size)
    draw = np.random.default_rng([zlib.crc32(name.encode()), size])
    left, right = (np.linalg.qr(draw.standard_normal((size, size)))[0] for _ in range(2))
    return Operator(name, (left * np.sqrt(values)) @ right.T)
