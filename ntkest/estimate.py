"""Results: a value, its error bar, an interval, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .linearization import Array, InvalidValueError, number

FLOOR = 4.0
"""Error bars are at least this many machine epsilons of the value: all that rounding leaves to be known."""


NORMAL_FROM = 1e7
"""Degrees of freedom from which χ² is as good as normal, and its quantiles lose digits."""


@dataclass(frozen=True)
class Exactly:
    """The law of a value without sampling error."""

    def bounds(self, value: float, std_error: float, level: float) -> tuple[float, float]:
        """The value itself."""
        return value, value


@dataclass(frozen=True)
class StudentT:
    """Value ± t · standard error, in logarithms where `logarithmic` says that all replicates were positive."""

    degrees: int
    log_error: Array
    """Standard error of the logarithm."""
    logarithmic: Array
    """Whether to work in logarithms."""

    def bounds(self, value: float, std_error: float, level: float) -> tuple[float, float]:
        """Student's t interval."""
        from scipy.special import stdtrit

        t = float(stdtrit(self.degrees, 0.5 + level / 2))
        if number(self.logarithmic) and value > 0:
            factor = math.exp(min(t * number(self.log_error), 700.0))
            return value / factor, value * factor
        return value - t * std_error, value + t * std_error


@dataclass(frozen=True)
class ScaledChiSquare:
    """A power of a moment: an exact share plus a positive mean that goes like a multiple of χ²_ν.

    For tr K = mean ‖Jᵀω‖² each sample is a weighted sum of squares, skewed to the right. ‖K‖_F is the square root of
    such a moment, and the alignment with targets goes with its power -½.
    """

    share: Array
    """The exact part of the moment, relative to the whole."""
    degrees: Array
    """ν, the degrees of freedom of the rest."""
    power: float

    def bounds(self, value: float, std_error: float, level: float) -> tuple[float, float]:
        """Interval from the quantiles of χ²."""
        from scipy.special import chdtri, ndtri

        share, nu = number(self.share), max(number(self.degrees), 0.05)
        if nu > NORMAL_FROM:
            z = float(ndtri(0.5 + level / 2)) * math.sqrt(2 / nu)
            low, high = 1 - (1 - share) * z, 1 + (1 - share) * z
        else:
            quantiles = [float(chdtri(nu, tail)) for tail in (0.5 - level / 2, 0.5 + level / 2)]
            low, high = (share + (1 - share) * (nu / q if q > 0 else math.inf) for q in quantiles)
        ends = (value * low**self.power, value * high**self.power)
        return min(ends), max(ends)


@dataclass(frozen=True)
class AtMost:
    """Another law's interval, for a quantity that has a largest value, cut off there.

    An estimate beyond that value is brought back to it. The lower end is where the law puts it for the estimate as it
    was, but no less than a standard error below what it was brought back to.
    """

    law: StudentT | ScaledChiSquare
    centre: Array
    """The estimate as it was."""
    most: float

    def bounds(self, value: float, std_error: float, level: float) -> tuple[float, float]:
        """Interval about the centre, cut off at `most`."""
        low, high = self.law.bounds(number(self.centre), std_error, level)
        return min(low, value - std_error if value >= self.most else value), max(min(high, self.most), value)


Law = Exactly | StudentT | ScaledChiSquare | AtMost


@dataclass(frozen=True)
class Estimate:
    """An estimated quantity of a neural tangent kernel.

    `value` and `std_error` are arrays of shape () in the namespace, on the device and in the dtype (at least float32)
    of the model; ``float(e)`` is the value as a number.
    """

    quantity: str
    """Name of the quantity, for example "trace"."""
    value: Array
    """The estimate."""
    std_error: Array
    """Its standard error; at least the rounding floor."""
    passes: int
    """AD passes that the call spent, pilot included; a JVP made of two VJPs counts two. The check that `linearize`
    makes once, a pass a mode, belongs to the linearization and is not among them."""
    n_jvp: int
    """JVPs among them."""
    n_vjp: int
    """VJPs among them."""
    method: str
    """The estimator."""
    law: Law = field(repr=False)
    """The sampling law that `interval` uses."""
    rtol: float = field(default=0.05, repr=False)
    """The relative tolerance that was asked for, ..."""
    atol: float = field(default=0.0, repr=False)
    """... and the absolute one."""
    why: str = field(default="", repr=False)
    """Why this estimator was chosen, if `method` was "auto"."""
    parts: Mapping[str, Estimate] = field(default_factory=dict, repr=False)
    """With ``by=``, the estimate of each layer or parameter. For the trace they sum to the whole."""
    state: Any = field(default=None, repr=False)
    """With ``state=True``, what was spent, to be carried on; otherwise None."""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Seed, samples, chunk, dtype, device and versions."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided confidence interval.

        A scaled χ² for traces, norms and alignments with targets, Student's t in logarithms of the jackknife for other
        ratios; widened by the rounding floor. Needs concrete values: under ``jax.jit`` return `value` and `std_error`
        instead.
        """
        if not 0 < level < 1:
            raise InvalidValueError(f"level must lie between 0 and 1, got {level}")
        value, error = number(self.value, "the interval's centre"), number(self.std_error)
        low, high = self.law.bounds(value, error, level)
        from scipy.special import ndtri

        slack = float(ndtri(0.5 + level / 2)) * self.about.get("floor", 0.0) * abs(value)
        return value - math.hypot(value - low, slack), value + math.hypot(high - value, slack)

    @property
    def half_width(self) -> float:
        """Half the width of ``interval(0.95)``, or all of it that is below the value if that is more."""
        low, high = self.interval(0.95)
        return max((high - low) / 2, number(self.value) - low)

    @property
    def converged(self) -> bool:
        """Whether the half-width of ``interval(0.95)`` is at most `rtol` times the size of the value, or `atol`."""
        return self.half_width <= max(self.rtol * abs(number(self.value)), self.atol)

    def __float__(self) -> float:
        return number(self.value)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.quantity} {float(self):.5g}  (95 %: {low:.4g} … {high:.4g}; {self.method}, {self.passes} passes)"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        low, high = self.interval(0.95)
        plain: dict[str, Any] = {
            "quantity": self.quantity,
            "value": float(self),
            "std_error": number(self.std_error),
            "interval_95": [low, high],
            "passes": self.passes,
            "n_jvp": self.n_jvp,
            "n_vjp": self.n_vjp,
            "method": self.method,
            "why": self.why,
            "rtol": self.rtol,
            "atol": self.atol,
            "converged": self.converged,
            **self.about,
        }
        if self.parts:
            plain["parts"] = {
                name: {
                    "value": float(part),
                    "std_error": number(part.std_error),
                    "interval_95": list(part.interval(0.95)),
                }
                for name, part in self.parts.items()
            }
        return plain

    def plot(self, ax: Any = None) -> Any:
        """Draw the value with its 95 % interval, and the parts below it; needs matplotlib. Returns the axes."""
        from .plots import interval_chart

        named = {name or self.quantity: estimate for name, estimate in self.walk()}
        return interval_chart({name: (float(e), *e.interval()) for name, e in named.items()}, self.quantity, ax)

    def walk(self) -> Iterator[tuple[str, Estimate]]:
        """The whole under the name "", then the parts."""
        yield "", self
        yield from self.parts.items()
