"""Conjugate gradients: systems with a positive definite operator that is only ever applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat

from ..linearization import Array, InvalidTypeError, InvalidValueError, ShapeError, accumulator, number

Apply = Callable[[Array], Array]
"""A linear operator, (m, c) to (m, c)."""


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found."""

    values: Array
    """x (m, c)."""
    residuals: tuple[float, ...]
    """max over columns of ‖b - A x‖/‖b‖, before each iteration and after the last, as the recurrence has it."""
    converged: bool
    """Whether the last of them is at most the tolerance."""

    @property
    def iterations(self) -> int:
        """How often the operator was applied."""
        return len(self.residuals) - 1


def conjugate_gradients(
    apply: Apply,
    values: Any,
    *,
    preconditioner: Apply | None = None,
    rtol: float = 1e-6,
    max_iterations: int = 1000,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A, all columns of b side by side.

    Vectors stay in the namespace, on the device and in the dtype of b; inner products are taken in float64 where the
    device has it. Columns have step sizes of their own, and one that has converged moves no more.

    Parameters
    ----------
    apply : callable
        A, from (m, c) to (m, c).
    values : array (m, c)
        b.
    preconditioner : callable, optional
        An approximation of A⁻¹, symmetric positive definite.
    rtol : float
        Of the residual, relative to b.
    max_iterations : int

    Returns
    -------
    Solution
        One application of A, and of the preconditioner, an iteration.

    References
    ----------
    Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. NBS 1952; Saad,
    "Iterative methods for sparse linear systems", 2nd ed., 2003, algorithm 9.1.
    """
    _check(values, rtol, max_iterations)
    xp = array_api_compat.array_namespace(values)
    wide, dtype = accumulator(xp, values), values.dtype

    def inner(a: Array, b: Array) -> Array:
        return xp.sum(xp.astype(a, wide, copy=False) * xp.astype(b, wide, copy=False), axis=0)

    def ratio(a: Array, b: Array) -> Array:
        safe = xp.where(b > 0, b, xp.ones_like(b))
        return xp.astype(xp.where(b > 0, a / safe, xp.zeros_like(b)), dtype)

    size = inner(values, values)
    found, residual = xp.zeros_like(values), values
    direction = shaped = residual if preconditioner is None else preconditioner(residual)
    along = inner(residual, shaped)
    history = [_largest(xp, inner(residual, residual), size)]
    while history[-1] > rtol and len(history) <= max_iterations:
        active = xp.astype(inner(residual, residual) > rtol**2 * size, dtype)
        image = apply(direction)
        step = active * ratio(along, inner(direction, image))
        found, residual = found + step * direction, residual - step * image
        shaped = residual if preconditioner is None else preconditioner(residual)
        before, along = along, inner(residual, shaped)
        direction = shaped + ratio(along, before) * direction
        history.append(_largest(xp, inner(residual, residual), size))
    return Solution(found, tuple(history), history[-1] <= rtol)


def _largest(xp: Any, squares: Array, sizes: Array) -> float:
    """The largest relative residual; 0 where b is."""
    safe = xp.where(sizes > 0, sizes, xp.ones_like(sizes))
    return float(number(xp.max(xp.where(sizes > 0, squares / safe, xp.zeros_like(sizes)))) ** 0.5)


def _check(values: Any, rtol: float, max_iterations: int) -> None:
    if not array_api_compat.is_array_api_obj(values):
        raise InvalidTypeError(f"conjugate gradients take an array (m, c), not {type(values).__name__}")
    if len(values.shape) != 2:
        raise ShapeError(f"conjugate gradients take an array (m, c), not one of shape {tuple(values.shape)}")
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int):
        raise InvalidTypeError(f"max_iterations= takes a positive integer, not {max_iterations!r}")
    if max_iterations < 1 or not 0 < rtol < 1:
        raise InvalidValueError(f"max_iterations={max_iterations} is to be positive, and rtol={rtol} between 0 and 1")
