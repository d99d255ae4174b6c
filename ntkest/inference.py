"""From moments to quantities with error bars.

A quantity is a formula of moments. Its error bar comes from the same formula of the moments without one probe
each: the delete-one jackknife (Efron and Stein 1981), which follows shared probes through ratios and roots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from .estimate import FLOOR, Estimate, Exactly, Law, ScaledChiSquare, StudentT
from .estimators import Key, Moment, Problem
from .linearization import Array, NonFiniteError, ZeroKernelError, eps, is_concrete, number, scalar_dtype

ENOUGH_TO_DEBIAS = 16
"""From this many probes on the jackknife's bias correction of a ratio is worth its variance."""


@dataclass(frozen=True)
class Quantity:
    """A quantity of one or two kernels."""

    name: str
    keys: tuple[Key, ...]
    formula: Callable[..., Array]
    """Of the moments in `keys`, elementwise."""
    kernel: int | None = None
    """The kernel whose scale the quantity has; None for ratios."""
    mean: bool = False
    """Whether it is the mean of positive samples: its interval is then a scaled χ²."""
    debias: bool = False
    """Whether the jackknife's bias correction reduces its error."""


def trace_of(a: int) -> Quantity:
    """Tr K."""
    return Quantity("trace", (("trace", a),), _same, kernel=a, mean=True)


def frobenius_norm_of(a: int) -> Quantity:
    """‖K‖_F."""
    return Quantity("frobenius_norm", (("square", a),), _root, kernel=a)


def effective_rank_of(a: int) -> Quantity:
    """tr(K)²/‖K‖_F²."""
    return Quantity("effective_rank", (("trace", a), ("square", a)), _rank, debias=True)


def target_alignment_of(a: int) -> Quantity:
    """yᵀKy/(‖y‖²‖K‖_F)."""
    return Quantity("alignment", (("target", a), ("square", a)), _over_root)


def alignment_of(a: int, b: int) -> Quantity:
    """⟨K_a, K_b⟩/(‖K_a‖_F‖K_b‖_F)."""
    return Quantity("alignment", (("cross", a, b), ("square", a), ("square", b)), _cosine)


def _same(x: Array) -> Array:
    return x


def _root(square: Array) -> Array:
    return square**0.5


def _rank(trace: Array, square: Array) -> Array:
    return trace * trace / square


def _over_root(product: Array, square: Array) -> Array:
    return product / square**0.5


def _cosine(product: Array, left: Array, right: Array) -> Array:
    return product / left**0.5 / right**0.5


@dataclass(frozen=True)
class Statistics:
    """From moments (rows,) and replicates (m, rows) to what an `Estimate` holds, one tuple a row; array-only."""

    xp: ModuleType
    quantity: Quantity
    rows: int
    dtype: Any
    """Of the results."""
    scale: float
    """The power of two that images were scaled down by, for quantities that have a scale."""
    floor: float
    """Relative rounding floor of the error."""

    def __call__(
        self, moments: tuple[Array, ...], replicates: tuple[Array | None, ...], offset: Array | float
    ) -> tuple[tuple[Array, ...], ...]:
        """(value, std_error) a row where all is exact; else also offset, log_error, logarithmic and degrees."""
        value = self.quantity.formula(*moments)
        if all(r is None for r in replicates):
            return self._rows(value, self.xp.abs(value) * self.floor)
        arrays = [x[None, :] if r is None else r for x, r in zip(moments, replicates, strict=True)]
        without = self.quantity.formula(*arrays)
        offset = value * 0.0 + offset
        value, error, log_error, positive, degrees = self._spread(value, without, offset)
        error = (error * error + (self.floor * value) ** 2) ** 0.5
        return self._rows(value, error, offset, log_error, positive, degrees)

    def _rows(self, *columns: Array) -> tuple[tuple[Array, ...], ...]:
        xp = self.xp
        scaled = [column * self.scale * self.scale if i < 3 else column for i, column in enumerate(columns)]
        typed = [xp.astype(column, self.dtype, copy=False) if i < 3 else column for i, column in enumerate(scaled)]
        return tuple(tuple(column[row, ...] for column in typed) for row in range(self.rows))

    def _spread(self, value: Array, without: Array, offset: Array) -> tuple[Array, ...]:
        """Value, std_error, log_error, whether logarithms exist, and degrees of freedom, (rows,) each."""
        xp, q, m = self.xp, self.quantity, without.shape[0]
        spread = without - xp.mean(without, axis=0)[None, :]
        variance = (m - 1) / m * xp.sum(spread * spread, axis=0)
        positive = xp.logical_and(value > 0, xp.all(without > 0, axis=0))
        one = value * 0 + 1
        logs = xp.log(xp.where(positive[None, :], without / xp.where(positive, value, one)[None, :], one[None, :]))
        log_mean = xp.mean(logs, axis=0)
        log_error = _safe_root(xp, (m - 1) / m * xp.sum((logs - log_mean[None, :]) ** 2, axis=0))
        error = _safe_root(xp, variance)
        if q.mean:
            return value, error, log_error, positive, _degrees(xp, value - offset, without - offset[None, :])
        if q.debias and m >= ENOUGH_TO_DEBIAS:
            value = value * xp.exp(-(m - 1) * log_mean)
        return value, xp.where(positive, xp.abs(value) * log_error, error), log_error, positive, log_error


def _safe_root(xp: ModuleType, square: Array) -> Array:
    """Square root with gradient 0, not infinity, at 0."""
    positive = square > 0
    return xp.where(positive, xp.where(positive, square, square * 0 + 1) ** 0.5, square * 0)


def _degrees(xp: ModuleType, mean: Array, without: Array) -> Array:
    """Degrees of freedom of a mean of m positive samples, at a lower confidence limit.

    ν = 2·mean²/Var(mean), times exp(-se(log ν)) by the jackknife: measured coverage of the 95 % interval is
    .94 to .97 for 8 to 64 samples on exponential, power, step, flat and low-rank spectra, against .84 to .95 for
    Student's t. On flat spectra ν is large and the interval is the normal one.
    """
    m = without.shape[0]
    samples = m * mean[None, :] - (m - 1) * without
    squares = (samples - mean[None, :]) ** 2
    total = xp.sum(squares, axis=0)
    tiny = float(xp.finfo(mean.dtype).smallest_normal) * 1e3
    floor = xp.maximum(mean * mean * float(xp.finfo(mean.dtype).eps) ** 2, mean * 0 + tiny)
    spread = xp.maximum((total[None, :] - squares * m / (m - 1)) / max(m - 2, 1), floor[None, :])
    whole = xp.maximum(total / (m - 1), floor)
    safe = xp.where(without > 0, without / xp.where(mean > 0, mean, mean * 0 + 1)[None, :], without * 0 + 1)
    logs = 2 * xp.log(safe) - xp.log(spread / whole[None, :])
    wobble = _safe_root(xp, (m - 1) / m * xp.sum((logs - xp.mean(logs, axis=0)[None, :]) ** 2, axis=0))
    nu = 2.0 * m * mean * mean / whole
    return nu * xp.exp(-wobble)


def infer(problem: Problem, quantity: Quantity, moments: Mapping[Key, Moment], **result: Any) -> Estimate:
    """The estimate of `quantity`, with its parts if the problem has any; `result` goes to `Estimate`."""
    xp = problem.xp
    J = problem.kernels[quantity.kernel or 0].J
    chosen = [moments[key] for key in quantity.keys]
    _refuse_zero(quantity, moments)
    floor = FLOOR * eps(xp, J.outputs, *J.params)
    scale = 1.0 if quantity.kernel is None else 2.0 ** problem.exponents[quantity.kernel]
    statistics = Statistics(xp, quantity, problem.rows, scalar_dtype(xp, J.outputs), scale, floor)
    replicates = tuple(moment.replicates for moment in chosen)
    rows = problem.kernels[0].compile(statistics)(tuple(m.value for m in chosen), replicates, chosen[0].offset)
    samples = max((r.shape[0] for r in replicates if r is not None), default=0)

    def law(offset: Array, log_error: Array, positive: Array, degrees: Array) -> Law:
        return ScaledChiSquare(offset, degrees) if quantity.mean else StudentT(samples - 1, log_error, positive)

    about = {**result.pop("about", {}), "samples": samples, "floor": floor}
    estimates = [
        Estimate(quantity.name, value, error, law=law(*rest) if rest else Exactly(), about=about, **result)
        for value, error, *rest in rows
    ]
    whole = estimates[0]
    if is_concrete(whole.value) and not abs(number(whole.value)) < float("inf"):
        raise NonFiniteError(
            f"the {quantity.name} is {number(whole.value)}: it leaves the range of {whole.value.dtype}, or a "
            "derivative is not finite; use float64, or rescale the outputs"
        )
    if not problem.groups.names:
        return whole
    return replace(whole, parts=dict(zip(problem.groups.names, estimates[1:], strict=True)))


def _refuse_zero(quantity: Quantity, moments: Mapping[Key, Moment]) -> None:
    """A ratio with ‖K‖ = 0 has no value."""
    for key in quantity.keys:
        if key[0] == "square" and quantity.kernel is None:
            square = moments[key].value[0, ...]
            if is_concrete(square) and number(square) == 0:
                raise ZeroKernelError(
                    f"the kernel is zero, so its {quantity.name} is not defined: no parameter that was "
                    "selected moves the outputs"
                )
