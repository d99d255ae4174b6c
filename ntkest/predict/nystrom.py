"""Kernel ridge regression on chosen columns, for more examples than a Cholesky factorisation can take."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, ShapeError
from .factors import Spectral, solve_upper
from .leaveout import LeftOut, best_ridge, left_out, rounding_floor
from .pivoted import pivoted_cholesky, take_rows
from .systems import System, checked_ridge, system_of


@dataclass(frozen=True)
class NystromRidge:
    """A fit on the span of some columns of the kernel; made by `nystrom_ridge`."""

    ridge: float
    """λ, absolute."""
    pivots: np.ndarray
    """(k,): the rows of the kernel that were chosen: examples, or example·O + output for the full kernel."""
    residual: float
    """tr(K - F Fᵀ) / tr K, the share of the kernel that the columns leave out."""
    _system: System = field(repr=False)
    _factor: Spectral = field(repr=False)
    _weights: Array = field(repr=False)

    def predict(self, cross: Any) -> Array:
        """Predictions k β for other examples, in the shape of the targets.

        Parameters
        ----------
        cross : array (N', k) or (N'·O, k)
            The kernel between other examples and the pivots, in their order:
            ``ntkest.pntk(J_other, ntkest.linearize(model, inputs[fit.pivots]))``.
        """
        system, k = self._system, len(self.pivots)
        system.check_like(cross, "the kernel between other examples and the pivots")
        if len(cross.shape) != 2 or cross.shape[1] != k or cross.shape[0] % system.block:
            raise ShapeError(
                f"the kernel between other examples and the pivots has shape (N'·{system.block}, {k}), not "
                f"{tuple(cross.shape)}"
            )
        return system.arranged(system.wide(cross) @ self._weights)

    def left_out(self) -> LeftOut:
        """Predictions for each example by a fit to all others, on the same pivots, in closed form."""
        return left_out(self._system, self._factor, self._factor.solve(self._system.values))


def nystrom_ridge(
    K: Any,
    targets: Any,
    rank: int,
    ridge: float | str = "loo",
    diagonal: Any = None,
    *,
    block: int | None = None,
    seed: int = 0,
) -> NystromRidge:
    """Kernel ridge regression with K replaced by F Fᵀ, of randomly pivoted Cholesky.

    Parameters
    ----------
    K : array (m, m), or callable
        A kernel, or a function for its columns; see `pivoted_cholesky`, also for `rank`, `diagonal`, `block`, `seed`.
    targets : array (N,) or (N, O), or integer labels (N,)
        As for `kernel_ridge`.
    rank : int
    ridge : "loo" or float
        As for `kernel_ridge`.
    diagonal : array (m,), optional
    block, seed : int

    Returns
    -------
    NystromRidge
        For k columns of the kernel, and some m·k² multiplications for the factor and its singular vectors.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError

    References
    ----------
    Williams and Seeger, "Using the Nyström method to speed up kernel machines", NeurIPS 2000; for the pivots see
    `pivoted_cholesky`.
    """
    known = K if diagonal is None else diagonal
    found = pivoted_cholesky(K, rank, diagonal, block=block, seed=seed)
    xp: ModuleType = array_api_compat.array_namespace(found.factor)
    system = system_of(xp, known.shape[0], targets, known)
    left, sizes, right = xp.linalg.svd(found.factor, full_matrices=False)
    if isinstance(ridge, str) and ridge == "loo":
        chosen = best_ridge(system, left, sizes**2, rounding_floor(xp, known, sizes[0] ** 2))
    else:
        chosen = checked_ridge(ridge, positive=True)
    inside = (sizes / (sizes**2 + chosen))[:, None] * (left.T @ system.values)
    triangle = take_rows(xp, found.factor, found.pivots)
    weights = solve_upper(xp, triangle.T, right.T @ inside)  # F_S⁻ᵀ w, so that k(x, S) times it is the prediction
    return NystromRidge(chosen, found.pivots, found.residual, system, Spectral(left, sizes**2, chosen), weights)
