"""From moments to quantities with error bars.

A quantity is a formula of moments. Its error bar comes from the same formula of the moments without one probe
each: the delete-one jackknife (Efron and Stein 1981), which follows shared probes through ratios and roots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """Value, standard errors and degrees of freedom of a quantity from moments (rows,) and replicates (m, rows)."""

    xp: ModuleType
    quantity: Quantity
    samples: int

    def __call__(self, moments: tuple[Array, ...], replicates: tuple[Array, ...], offset: Array) -> tuple[Array, ...]:
        """All of shape (rows,): value, std_error, log_error, logarithmic, degrees."""
        xp, m, q = self.xp, self.samples, self.quantity
        value, without = q.formula(*moments), q.formula(*replicates)
        spread = without - xp.mean(without, axis=0)[None, :]
        variance = (m - 1) / m * xp.sum(spread * spread, axis=0)
        positive = xp.logical_and(value > 0, xp.all(without > 0, axis=0))
        safe = xp.where(positive[None, :], without / xp.where(positive, value, value * 0 + 1)[None, :], value * 0 + 1)
        logs = xp.log(safe)
        log_mean = xp.mean(logs, axis=0)
        log_variance = (m - 1) / m * xp.sum((logs - log_mean[None, :]) ** 2, axis=0)
        log_error = _safe_root(xp, log_variance)
        error = _safe_root(xp, variance)
        if q.mean:
            return value, error, log_error, positive, _degrees(xp, value - offset, without - offset, variance)
        if q.debias and m >= ENOUGH_TO_DEBIAS:
            value = value * xp.exp(-(m - 1) * log_mean)
        error = xp.where(positive, xp.abs(value) * log_error, error)
        return value, error, log_error, positive, log_error


def _safe_root(xp: ModuleType, square: Array) -> Array:
    """Square root with gradient 0, not infinity, at 0."""
    positive = square > 0
    return xp.where(positive, xp.where(positive, square, square * 0 + 1) ** 0.5, square * 0)


def _degrees(xp: ModuleType, mean: Array, without: Array, variance: Array) -> Array:
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
    J = problem.kernels[0].J if quantity.kernel is None else problem.kernels[quantity.kernel].J
    chosen = [moments[key] for key in quantity.keys]
    values = tuple(moment.value for moment in chosen)
    _refuse_zero(quantity, moments)
    floor = FLOOR * eps(xp, J.outputs, *J.params)
    counts = {moment.replicates.shape[0] for moment in chosen if moment.replicates is not None}
    degrees: Array = None
    log_error: Array = None
    logarithmic: Array = None
    offset: Array = chosen[0].offset
    if counts:
        (m,) = counts
        replicates = tuple(x.value[None, :] if x.replicates is None else x.replicates for x in chosen)
        offset = values[0] * 0.0 + offset
        statistics = problem.kernels[0].compile(Statistics(xp, quantity, m))
        value, error, log_error, logarithmic, degrees = statistics(values, replicates, offset)
        error = (error * error + (floor * value) ** 2) ** 0.5
    else:
        m, value = 0, quantity.formula(*values)
        error = xp.abs(value) * floor

    def row(array: Array, index: int, scaled: bool = True) -> Array:
        number_ = array[index, ...]
        if scaled and quantity.kernel is not None:
            scale = 2.0 ** problem.exponents[quantity.kernel]
            number_ = number_ * scale * scale
        return xp.astype(number_, scalar_dtype(xp, J.outputs), copy=False)

    def law(index: int) -> Law:
        if not counts:
            return Exactly()
        if quantity.mean:
            return ScaledChiSquare(row(offset, index), degrees[index, ...])
        return StudentT(m - 1, log_error[index, ...], logarithmic[index, ...])

    about = {**result.pop("about", {}), "samples": m, "floor": floor}
    estimates = [
        Estimate(quantity.name, row(value, i), row(error, i), law=law(i), about=about, **result)
        for i in range(problem.rows)
    ]
    whole = estimates[0]
    if is_concrete(whole.value) and not abs(number(whole.value)) < float("inf"):
        raise NonFiniteError(
            f"the {quantity.name} is {number(whole.value)}: it leaves the range of {whole.value.dtype}, or a "
            "derivative is not finite; use float64, or rescale the outputs"
        )
    if not problem.groups.names:
        return whole
    parts = dict(zip(problem.groups.names, estimates[1:], strict=True))
    return Estimate(**{**{f: getattr(whole, f) for f in whole.__dataclass_fields__}, "parts": parts})


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
