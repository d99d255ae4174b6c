"""Leaving out one example in closed form, and the ridge that does best at it.

With α = (K + λI)⁻¹ y, the prediction for example i by all the others is y_i - G_ii⁻¹ α_i, where G_ii is the b × b
block of (K + λI)⁻¹ that belongs to i: one factorisation gives the predictions of all N leave-one-out fits. For b = 1 it
is the formula of Allen's PRESS; the blocks are those of the block inverse, by the same argument.

References: Allen, "The relationship between variable selection and data augmentation and a method for prediction",
Technometrics 1974; Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equation 5.12; An, Liu,
Venkatesh, "Fast cross-validation algorithms for least squares support vector machine and kernel ridge regression",
Pattern Recognition 2007 (blocks).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..linearization import Array, InvalidValueError, eps, number
from .factors import Factor, Spectral
from .systems import System

LOWEST, HIGHEST = -10, 3
"""Decades of the ridge, relative to the mean eigenvalue, among which the best is looked for."""

COARSE, FINE = 2, 16
"""Candidates a decade, first over all decades, then beside the best."""


@dataclass(frozen=True)
class LeftOut:
    """What the fits without an example say about it."""

    predictions: Array
    """(N, …), in the shape of the targets."""
    error: float
    """Mean squared difference from the targets."""
    accuracy: float | None
    """How often the largest output is that of the targets; None for a single output."""


def left_out(system: System, factor: Factor, coefficients: Array) -> LeftOut:
    """Predictions for each example by the others, and how good they are."""
    residuals = _residuals(system, factor, coefficients)
    predictions = system.values - residuals
    return LeftOut(
        system.arranged(predictions),
        number(_mean_square(system.xp, residuals)),
        accuracy(system, predictions, system.values),
    )


def best_ridge(system: System, vectors: Array, eigenvalues: Array, floor: float) -> float:
    """The ridge with the least squared error on examples left out, to a sixteenth of a decade.

    Parameters
    ----------
    system : System
    vectors, eigenvalues : array (m, r), (r,)
        Of the kernel.
    floor : float
        The least ridge that rounding allows.
    """
    scale = number(system.xp.sum(eigenvalues)) / int(vectors.shape[0])
    if not scale > 0:
        raise InvalidValueError("the kernel is zero, and predicts nothing")

    def error(decade: float) -> float:
        factor = Spectral(vectors, eigenvalues, scale * 10**decade)
        residuals = _residuals(system, factor, factor.solve(system.values))
        return float(number(_mean_square(system.xp, residuals)))

    lowest = max(LOWEST, float(np.log10(floor / scale)))
    coarse = _least(error, np.arange(HIGHEST, lowest, -1 / COARSE))
    fine = coarse + np.arange(-FINE // COARSE + 1, FINE // COARSE) / FINE
    return scale * math.pow(10, _least(error, fine[fine >= lowest][::-1]))


def rounding_floor(xp: ModuleType, K: Array, largest: Array) -> float:
    """What counts as zero beside the largest eigenvalue λ₁ of a kernel whose entries are rounded as K's are.

    Rounding of m² entries near λ₁/m moves eigenvalues by about 2 λ₁ eps/√m, and the eigensolver by some eps λ₁.
    """
    return 10 * eps(xp, K) * number(largest)


def accuracy(system: System, predictions: Array, values: Array) -> float | None:
    """How often the largest output of an example is the same in both (m', c)."""
    xp, outputs = system.xp, int(np.prod(system.shape[1:], dtype=int))
    if outputs == 1:
        return None
    chosen, true = (xp.argmax(xp.reshape(a, (-1, outputs)), axis=1) for a in (predictions, values))
    return float(number(xp.mean(xp.astype(chosen == true, system.values.dtype))))


def _residuals(system: System, factor: Factor, coefficients: Array) -> Array:
    """G_ii⁻¹ α_i for every example, (m, c)."""
    xp, b = system.xp, system.block
    blocks = factor.inverse_blocks(b)
    alpha = xp.reshape(coefficients, (system.count, b, -1))
    found = alpha / blocks if b == 1 else xp.linalg.solve(blocks, alpha)
    return xp.reshape(found, coefficients.shape)


def _mean_square(xp: ModuleType, residuals: Array) -> Array:
    return xp.mean(residuals * residuals)


def _least(error: Callable[[float], float], candidates: np.ndarray) -> float:
    """The first candidate with the least error; the strongest ridge comes first."""
    errors = [error(float(candidate)) for candidate in candidates]
    if not np.isfinite(errors).any():
        raise InvalidValueError("leaving out an example fails at every ridge; give ridge= as a number")
    return float(candidates[int(np.nanargmin(errors))])
