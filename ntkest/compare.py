"""How well one kernel stands in for another, and whether the outputs of a network allow pNTK to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from .kernels import ntk
from .linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    ZeroKernelError,
    accumulator,
    eps,
    number,
    numbers,
)
from .predict.pivoted import take_rows
from .predict.ridge import KernelRidge, kernel_ridge
from .predict.systems import System, as_system, check_beside, check_kernel

WORST = 0.5
"""Relative error from which on a kernel is not said to stand in for another: half of it is something else."""


@dataclass(frozen=True)
class Comparison:
    """K₁ beside K₂, the reference; made by `compare`, prints as a table."""

    frobenius_error: float
    """‖K₁ - K₂‖_F / ‖K₂‖_F."""
    largest_ratio: float
    """λ_max(K₁) / λ_max(K₂)."""
    condition_numbers: tuple[float, float]
    """λ_max / λ_min of each; infinite where λ_min is zero to rounding."""
    spectra: tuple[np.ndarray, np.ndarray]
    """All eigenvalues of each, descending; those of K̂ ⊗ I count O times."""
    prediction_difference: float | None = None
    """‖f₁ - f₂‖_F / ‖f₂‖_F of ridge regression with each; None without targets."""
    agreement: float | None = None
    """How often the largest output is the same in both; None without targets or with one output."""
    ridges: tuple[float, float] | None = None
    """The ridge of each fit."""

    @property
    def condition_ratio(self) -> float:
        """Of K₁'s condition number and K₂'s; NaN where both are infinite."""
        first, second = self.condition_numbers
        return math.nan if math.isinf(first) and math.isinf(second) else first / second

    def __str__(self) -> str:
        rows = [
            ("relative Frobenius error", self.frobenius_error),
            ("ratio of largest eigenvalues", self.largest_ratio),
            ("ratio of condition numbers", self.condition_ratio),
            ("relative difference of predictions", self.prediction_difference),
            ("agreement of predicted classes", self.agreement),
        ]
        return "\n".join(f"{name:<36}{value:>10.4g}" for name, value in rows if value is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; what is not finite is None."""
        return {
            "frobenius_error": self.frobenius_error,
            "largest_ratio": self.largest_ratio,
            "condition_numbers": [_finite(c) for c in self.condition_numbers],
            "condition_ratio": _finite(self.condition_ratio),
            "spectra": [values.tolist() for values in self.spectra],
            "prediction_difference": self.prediction_difference,
            "agreement": self.agreement,
            "ridges": None if self.ridges is None else list(self.ridges),
        }


def compare(K1: Any, K2: Any, targets: Any = None, *, train: Any = None, ridge: float | str = "loo") -> Comparison:
    """How far K₁ is from K₂: entries, eigenvalues, and what is predicted with each.

    Parameters
    ----------
    K1, K2 : array (N, N) or (N·O, N·O), O fastest
        Two kernels of the same examples; K₂ is the reference. A kernel (N, N) beside one (N·O, N·O) stands for its
        product with the identity, K̂ ⊗ I_O, as pNTK does.
    targets : array (N,) or (N, O), or integer labels (N,), optional
        For kernel ridge regression with each.
    train : int or indices, optional
        The examples that are fitted, the first so many or these; the others are predicted. None: each
        example is predicted by all others.
    ridge : "loo" or float
        As for `ntkest.predict.kernel_ridge`, for each kernel by itself.

    Returns
    -------
    Comparison
        For the eigenvalues of both; with targets, two fits more.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError
    ZeroKernelError
        K₂ = 0.

    References
    ----------
    Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023,
    whose figures these are.
    """
    xp = check_kernel(K2)
    check_kernel(K1)
    check_beside(K1, K2, "the first kernel")
    rows = sorted((K1.shape[0], K2.shape[0]))
    if rows[1] % rows[0]:
        raise ShapeError(f"kernels of {K1.shape[0]} and {K2.shape[0]} rows are not of the same examples")
    wide = [xp.astype(K, accumulator(xp, K), copy=False) for K in (K1, K2)]
    size = number(xp.linalg.vector_norm(wide[1])) * math.sqrt(rows[1] // K2.shape[0])
    if size == 0:
        raise ZeroKernelError("the reference kernel is zero, so nothing can be relative to it")
    spectra = tuple(_spectrum(xp, K, rows[1] // K.shape[0]) for K in wide)
    floors = [K.shape[0] * eps(xp, K) for K in (K1, K2)]
    conditions = [_condition(values, floor) for values, floor in zip(spectra, floors, strict=True)]
    error = _distance(xp, *wide) / size
    ratio = float(spectra[0][0] / spectra[1][0])
    found = Comparison(error, ratio, (conditions[0], conditions[1]), (spectra[0], spectra[1]))
    return found if targets is None else _with_predictions(found, (K1, K2), targets, train, ridge)


@dataclass(frozen=True)
class ReadoutCheck:
    """Whether one kernel can stand for all outputs; made by `readout_check`, prints as a table."""

    sum_error: float
    """‖K̂ ⊗ I - K‖_F / ‖K‖_F for pNTK."""
    trace_error: float
    """The same for the trace kernel: the least that any K̂ ⊗ I can have."""
    correlation: float
    """ρ, the mean kernel of two outputs of an example over that of an output with itself: 0 if independent."""
    inflation: float
    """tr pNTK over tr of the trace kernel, 1 + (O - 1) ρ: at best 1, at worst O, or 0 where outputs cancel."""

    @property
    def advice(self) -> str:
        """``outputs=`` of `ntkest.ntk` for which the error is below one half: "sum", "trace" or "full"."""
        if self.sum_error <= WORST:
            return "sum"
        return "trace" if self.trace_error <= WORST else "full"

    def __str__(self) -> str:
        rows = [
            ("relative error of pNTK", self.sum_error),
            ("relative error of the trace kernel", self.trace_error),
            ("correlation of outputs", self.correlation),
            ("size of pNTK over trace kernel", self.inflation),
        ]
        lines = [f"{name:<36}{value:>10.4g}" for name, value in rows]
        return "\n".join([*lines, f"{'advice':<36}{f'outputs={self.advice!r}':>10}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {
            "sum_error": self.sum_error,
            "trace_error": self.trace_error,
            "correlation": self.correlation,
            "inflation": self.inflation,
            "advice": self.advice,
        }


def readout_check(kernel: Any, size: int | None = None) -> ReadoutCheck:
    """Whether pNTK can stand in for the full kernel, from the full kernel of a few examples.

    pNTK takes outputs for exchangeable and their gradients for nearly orthogonal. That holds for wide layers with
    independent rows of readout weights, hence at initialisation; it fails where rows are correlated, as they may be
    after training, or where hidden units are few.

    Parameters
    ----------
    kernel : Linearization, or array (N·O, N·O), O fastest
        J on some tens of examples, or their full kernel.
    size : int, optional
        O, for an array.

    Returns
    -------
    ReadoutCheck
        For a linearization it costs O reverse passes.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, NonFiniteError, NonDifferentiableError, UnsupportedModeError
    ZeroKernelError
        The kernel is zero.
    """
    if hasattr(kernel, "examples") and hasattr(kernel, "outputs"):
        K = ntk(kernel)
        size = math.prod(kernel.outputs.shape) // kernel.examples[1]
    else:
        K = kernel
    xp = check_kernel(K)
    if isinstance(size, bool) or not isinstance(size, int):
        raise InvalidTypeError(f"size= takes the number of outputs of an example, not {size!r}")
    if size < 1 or K.shape[0] % size:
        raise InvalidValueError(f"a kernel of {K.shape[0]} rows is not one of examples with {size} outputs")
    wide = xp.astype(K, accumulator(xp, K), copy=False)
    norm = number(xp.linalg.vector_norm(wide))
    if norm == 0:
        raise ZeroKernelError("the kernel is zero, so nothing can be relative to it")
    blocks = xp.reshape(wide, (K.shape[0] // size, size, K.shape[0] // size, size))
    trace = xp.sum(xp.stack([blocks[:, o, :, o] for o in range(size)]), axis=0) / size
    pairs = xp.sum(xp.sum(blocks, axis=3), axis=1) / size
    inflation = number(xp.linalg.trace(pairs)) / number(xp.linalg.trace(trace))
    return ReadoutCheck(
        _distance(xp, pairs, wide) / norm,
        _distance(xp, trace, wide) / norm,
        (inflation - 1) / (size - 1) if size > 1 else 0.0,
        inflation,
    )


def _distance(xp: ModuleType, first: Array, second: Array) -> float:
    """‖K₁ - K₂‖_F, block by block where one of them is for all outputs: K̂ ⊗ I is never formed."""
    if first.shape == second.shape:
        return number(xp.linalg.vector_norm(first - second))
    small, large = sorted((first, second), key=lambda K: int(K.shape[0]))
    n, size = small.shape[0], large.shape[0] // small.shape[0]
    blocks = xp.reshape(large, (n, size, n, size))
    square = 0.0
    for o, p in np.ndindex(size, size):
        block = blocks[:, o, :, p] - small if o == p else blocks[:, o, :, p]
        square += number(xp.linalg.vector_norm(block)) ** 2
    return math.sqrt(square)


def _spectrum(xp: ModuleType, K: Array, times: int) -> np.ndarray:
    return np.repeat(numbers(xp.linalg.eigvalsh(K))[::-1], times)


def _condition(spectrum: np.ndarray, floor: float) -> float:
    largest, least = float(spectrum[0]), float(spectrum[-1])
    return largest / least if least > floor * largest else math.inf


def _with_predictions(
    found: Comparison, kernels: tuple[Array, Array], targets: Any, train: Any, ridge: float | str
) -> Comparison:
    large = max(kernels, key=lambda K: int(K.shape[0]))
    system, _ = as_system(large, targets)
    if train is None:
        fits = [kernel_ridge(K, targets, ridge) for K in kernels]
        predictions = [numbers(fit.left_out().predictions) for fit in fits]
    else:
        fits, predictions = _split(system, kernels, train, ridge)
    first, second = (p.reshape(len(p), -1) for p in predictions)
    agree = float(np.mean(first.argmax(1) == second.argmax(1))) if first.shape[1] > 1 else None
    difference = float(np.linalg.norm(first - second) / np.linalg.norm(second))
    return replace(found, prediction_difference=difference, agreement=agree, ridges=(fits[0].ridge, fits[1].ridge))


def _split(
    system: System, kernels: tuple[Array, Array], train: Any, ridge: float | str
) -> tuple[list[KernelRidge], list[np.ndarray]]:
    """Fits on some examples, and predictions for the others."""
    xp, count = system.xp, system.count
    inside = _indices(train, count)
    outside = np.setdiff1d(np.arange(count), inside)
    fits, predictions = [], []
    values = take_rows(xp, xp.reshape(system.values, system.shape), inside)
    for K in kernels:
        each = np.arange(K.shape[0] // count)
        here, there = ((i[:, None] * len(each) + each).ravel() for i in (inside, outside))
        rows = take_rows(xp, K, here)
        fits.append(kernel_ridge(take_rows(xp, rows.T, here), values, ridge))
        predictions.append(numbers(fits[-1].predict(take_rows(xp, rows.T, there))))
    return fits, predictions


def _indices(train: Any, count: int) -> np.ndarray:
    """Of the examples that are fitted: some, and not all."""
    if isinstance(train, int) and not isinstance(train, bool):
        indices = np.arange(train)
    else:
        indices = np.unique(numbers(train) if hasattr(train, "tolist") else np.asarray(train))
    if indices.dtype.kind == "f" and (indices == np.round(indices)).all():
        indices = indices.astype(int)
    if indices.dtype.kind not in "iu" or indices.ndim != 1:
        raise InvalidTypeError(f"train= takes a number of examples or their indices, not {train!r}")
    if not 0 < len(indices) < count or indices[0] < 0 or indices[-1] >= count:
        raise InvalidValueError(f"train= takes some of the {count} examples, and leaves some; got {train!r}")
    return indices


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
