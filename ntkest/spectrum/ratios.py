"""Ratios with the largest eigenvalue: stable rank and condition number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..estimate import Estimate
from ..estimators import Moment
from ..inference import Quantity
from ..linearization import Array, InvalidValueError, Linearization, NonFiniteError, ZeroKernelError, number
from ..probes import check_seed
from ..progress import progress_of
from ..quantities import measure, setting
from ..sampling import Plan
from .eigen import eigenvalues
from .functions import check_ridge
from .golub_kahan import GolubKahan
from .krylov import block_size, done, iterate
from .results import estimate_of, widened
from .sides import ROUNDING, Operator
from .whole import exact, exact_passes


def stable_rank(
    J: Linearization,
    *,
    rtol: float = 0.05,
    max_passes: int = 2000,
    seed: int = 0,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
    progress: Any = False,
) -> Estimate:
    """Tr K / λ₁ = ‖J‖_F²/‖J‖²: between 1 and the rank, and at most the effective rank.

    First λ₁, until its residual is a tenth of `rtol`; then the trace, with what is left of `max_passes`. The error bar
    holds both. Keywords as in `ntkest.quantities`. Cost: some block steps of three vectors, and the passes of
    `ntkest.trace`. Raises `ZeroKernelError` where K = 0.
    """
    Plan(rtol=rtol, max_passes=max_passes)
    shared = {"seed": seed, "centered": centered, "memory": memory, "chunk": chunk, "progress": progress}
    top = eigenvalues(J, 1, tol=min(0.1 * rtol, 1e-2), max_passes=max_passes, **shared)
    largest = float(top.values[0])
    if largest == 0:
        raise ZeroKernelError("the kernel is zero, so its stable rank is not defined")
    scale = Operator.of(J, centered).scale
    quantity = Quantity("stable_rank", (("trace", 0),), _Over(largest / scale), power=1.0)
    (found,) = measure(J, (quantity,), rtol=rtol, max_passes=max(1, max_passes - top.passes), **shared)
    found = replace(
        found,
        passes=found.passes + top.passes,
        n_jvp=found.n_jvp + top.n_jvp,
        n_vjp=found.n_vjp + top.n_vjp,
    )
    return widened(found, number(found.value) * float(top.residuals[0]) / largest)


def condition_number(
    J: Linearization,
    ridge: float = 0.0,
    *,
    method: str = "auto",
    rtol: float = 0.05,
    max_passes: int = 2000,
    seed: int = 0,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
    progress: Any = False,
) -> Estimate:
    """(λ₁ + ridge)/(λ_M + ridge), the condition number of K + ridge · I, with an absolute ridge.

    Where all of J takes no more than `max_passes` it is exact to rounding. Else Krylov spaces bound it: λ_M has at most
    the smallest Ritz value, and at least zero, which is tight once that is far below the ridge. Without a ridge the
    smallest eigenvalue converges last of all, so `converged` is rarely reached.

    Parameters
    ----------
    J : Linearization
    ridge : float
        Not negative.
    method : "auto", "exact" or "krylov"
    rtol, max_passes, seed, centered, memory, chunk, progress
        As in `ntkest.quantities`.

    Raises
    ------
    NonFiniteError
        K is singular, by its shape or to rounding, and there is no ridge.
    ZeroKernelError
        K = 0 and there is no ridge.
    """
    if method not in ("auto", "exact", "krylov"):
        raise InvalidValueError(f"method= takes one of auto, exact, krylov, not {method!r}")
    Plan(rtol=rtol, max_passes=max_passes)
    ridge, seed = check_ridge(ridge, positive=False), check_seed(seed)
    operator = Operator.of(J, centered, memory, chunk)
    if not ridge and operator.rank < operator.outputs:
        raise NonFiniteError(
            f"K is singular: it has {operator.outputs} rows, and a rank of at most {operator.rank}; give ridge="
        )
    if method == "auto":
        method = "exact" if exact_passes(operator) <= max_passes or not operator.both else "krylov"
    if method == "krylov":
        operator.check_both("method='krylov'")
    if method == "exact" or not operator.rank:
        ends = _exact_ends(operator)
    else:
        ends = _krylov_ends(operator, ridge, rtol, max_passes, seed, progress_of(progress))
    value, error = _ratio(operator, ends, ridge)
    about = {"seed": seed, **setting(J)}
    quantity = Quantity("condition_number", (("ratio", 0),), _Over(1.0))
    moment = Moment(np.asarray([value]))
    return estimate_of(operator, quantity, (moment,), error, method=method, rtol=rtol, about=about)


@dataclass(frozen=True)
class _Ends:
    """Bounds on the largest and the smallest eigenvalue of the scaled operator."""

    largest: tuple[float, float]
    smallest: tuple[float, float]


def _exact_ends(operator: Operator) -> _Ends:
    sizes = exact(operator, operator.outputs, vectors=False).sizes
    return _Ends(_around(operator, sizes[0], sizes[0], 0.0), _around(operator, sizes[-1], sizes[0], 0.0))


def _krylov_ends(operator: Operator, ridge: float, rtol: float, max_passes: int, seed: int, report: Any) -> _Ends:
    """Block steps until both ends are known well enough."""
    singular = operator.rank < operator.outputs
    floor = ridge / operator.scale

    def ends(run: GolubKahan) -> _Ends:
        ritz = run.ritz()
        top = _around(operator, ritz.values[0], ritz.values[0], ritz.residuals[0])
        if singular:
            return _Ends(top, (0.0, 0.0))
        low, high = _around(operator, ritz.values[-1], ritz.values[0], ritz.residuals[-1])
        settled = run.following is None or ritz.residuals[-1] <= rtol * (ritz.values[-1] ** 2 + floor)
        return _Ends(top, (low if settled else 0.0, high))

    def stop(run: GolubKahan) -> bool:
        low, high = ends(run).smallest
        return done(operator, run.ritz(), 1, 0.1 * rtol) and high - low <= 0.5 * rtol * (high + floor)

    block = block_size(operator, 1)
    return ends(iterate(operator, block, stop, max_passes, seed, report)[0])


def _around(operator: Operator, size: float, largest: float, residual: float) -> tuple[float, float]:
    """Bounds on an eigenvalue near size²."""
    noise = ROUNDING * operator.eps * largest
    slack = math.hypot(residual, 2 * noise * size + noise**2)
    return max(0.0, size**2 - slack), size**2 + slack


def _ratio(operator: Operator, ends: _Ends, ridge: float) -> tuple[float, float]:
    """The middle of the ratio's bounds, and half their distance."""
    (a, b), (c, d) = ends.largest, ends.smallest
    floor = ridge / operator.scale
    if b + floor == 0:
        raise ZeroKernelError("the kernel is zero, so its condition number is not defined; give ridge=")
    if c + floor <= 0:
        raise NonFiniteError(
            f"K may be singular: its smallest eigenvalue is below {d * operator.scale:.2g}, which is all that "
            "can be told from zero; give ridge=, use float64, or method='exact'"
        )
    low, high = (a + floor) / (d + floor), (b + floor) / (c + floor)
    return (low + high) / 2, (high - low) / 2


@dataclass(frozen=True)
class _Over:
    """Division by a number; hashable by value, as compilers ask."""

    number: float

    def __call__(self, x: Array) -> Array:
        return x / self.number
