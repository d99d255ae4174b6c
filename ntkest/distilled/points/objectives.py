"""How well a few points stand for others in the tangent space: two objectives, as sums over the others.

K_ss and K_ts are exact class kernels (O, m, m) and (O, n, m) of new points s and targets t, and λ_c is a ridge times
the mean diagonal of K_ss. Both objectives are 0 at best, and 1 without points or predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...linearization import Array, Linearization, accumulator, beside
from .exact import Gradients, class_kernels


class Seen(NamedTuple):
    """What objectives know of some targets: arrays only, so that a compiled function can take it."""

    gradients: Gradients
    outputs: Array
    """(n, O), of the model."""
    squares: Array
    """(n,): Σ_c ‖φ_c‖²."""
    whole: Array
    """(2,): the means over all targets of the squares and of ‖f‖²."""


@dataclass(frozen=True)
class Residual:
    """The share of tangent features that lies outside the span of those of the points.

    E Σ_c ‖(I - Π_c)φ_c‖² / E Σ_c ‖φ_c‖² with Π_c the projector on the span of the φ_c of all points, with a ridge:
    Σ_c tr(K_tt - K_ts (K_ss + λI)⁻¹ K_st) in the numerator. The best span of m dimensions would leave the sum of all
    eigenvalues of E φφᵀ but the m largest.
    """

    ridge: float

    def __call__(self, J: Linearization, own: Gradients, values: Array, seen: Seen) -> Array:
        """Of the targets that are seen, relative to all; `values` do not matter."""
        xp = J.xp
        inside, cross = _kernels(self.ridge, J, own, seen)
        caught = xp.linalg.solve(inside, xp.matrix_transpose(cross) @ cross)  # (O, m, m)
        left = xp.sum(xp.astype(seen.squares, inside.dtype)) - xp.sum(xp.linalg.diagonal(caught))
        return left / (seen.squares.shape[0] * seen.whole[0])


@dataclass(frozen=True)
class Induced:
    """The error of class kernel regression from the points: kernel inducing points.

    E Σ_c (f_c - K_ts (K_ss + λI)⁻¹ y_c)² / E Σ_c f_c² with the model's outputs f on the targets and values y at the
    points.

    References
    ----------
    Nguyen, Chen, Lee, "Dataset meta-learning from kernel ridge-regression", ICLR 2021.
    """

    ridge: float

    def __call__(self, J: Linearization, own: Gradients, values: Array, seen: Seen) -> Array:
        """Of the targets that are seen, relative to all, from `values` (m, O)."""
        xp = J.xp
        inside, cross = _kernels(self.ridge, J, own, seen)
        known = xp.astype(values, inside.dtype).T[..., None]  # (O, m, 1)
        predicted = (cross @ xp.linalg.solve(inside, known))[..., 0]
        error = xp.astype(seen.outputs, inside.dtype).T - predicted
        return xp.sum(error * error) / (seen.squares.shape[0] * seen.whole[1])


Objective = Residual | Induced


def _kernels(ridge: float, J: Linearization, own: Gradients, seen: Seen) -> tuple[Array, Array]:
    """K_ss + λI (O, m, m) and K_ts (O, n, m), in float64 where the device has it."""
    xp = J.xp
    inside, cross = class_kernels(J, own), class_kernels(J, seen.gradients, own)
    wide = accumulator(xp, inside)
    inside, cross = xp.astype(inside, wide), xp.astype(cross, wide)
    level = ridge * xp.mean(xp.linalg.diagonal(inside), axis=1)
    return inside + level[:, None, None] * beside(xp, np.eye(inside.shape[1]), inside), cross
