"""The result: an array of traces with an error bar each, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..estimate import Estimate, Exactly
from ..linearization import Array, InvalidValueError, beside, number, numbers
from .laws import EntryLaw


@dataclass(frozen=True)
class PartialTraces:
    """Traces of diagonal blocks of a neural tangent kernel, or its diagonal.

    `value` and `std_error` have one entry a block. They are arrays in the namespace, on the device and in the dtype
    (at least float32) of the model.
    """

    value: Array
    """The traces."""
    std_error: Array
    """Their standard errors; at least the rounding floor."""
    over: tuple[int, ...]
    """The axes of the outputs that index `value`, in its order."""
    names: tuple[str | None, ...]
    """For each of them its name, or None."""
    total: Estimate
    """The sum of all entries, tr K, with an error bar of its own: entries from the same probes are not independent."""
    passes: int
    """AD passes that the call spent, pilots included; a JVP made of two VJPs counts two."""
    n_jvp: int
    """JVPs among them."""
    n_vjp: int
    """VJPs among them."""
    method: str
    """The estimator."""
    law: EntryLaw = field(repr=False)
    """The sampling law that `interval` uses."""
    rtol: float = field(default=0.05, repr=False)
    """The relative tolerance that was asked for."""
    atol: float = field(default=0.0, repr=False)
    """The absolute tolerance that was asked for."""
    why: str = field(default="", repr=False)
    """Why this estimator was chosen."""
    parts: Mapping[str, PartialTraces] = field(default_factory=dict, repr=False)
    """With ``by=``, the traces of each layer or parameter, which sum to the whole."""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Seed, samples, chunk, dtype, device and versions."""

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Ends of a two-sided confidence interval of each entry by itself, arrays like `value`.

        From a scaled χ² where samples are squares, Student's t where they are products (see
        `ntkest.partial.laws`); widened by the rounding floor. Needs concrete values: under ``jax.jit`` return
        `value` and `std_error` instead.
        """
        low, high = self._bounds(level)
        return beside(self._xp, low, self.value), beside(self._xp, high, self.value)

    @property
    def half_width(self) -> Array:
        """Half the width of ``interval(0.95)``, an array like `value`."""
        low, high = self._bounds(0.95)
        return beside(self._xp, (high - low) / 2, self.value)

    @property
    def excess(self) -> float:
        """The largest half-width of ``interval(0.95)``, each relative to what the tolerances allow it.

        That is the largest of rtol times the entry, rtol times the mean entry, and atol.
        """
        value, (low, high) = numbers(self.value), self._bounds(0.95)
        allowed = np.maximum(self.rtol * np.maximum(np.abs(value), np.abs(np.mean(value))), self.atol)
        half = (high - low) / 2
        return float(np.max(np.where(half > 0, half / np.maximum(allowed, 1e-300), 0.0)))

    @property
    def converged(self) -> bool:
        """Whether each half-width is at most `rtol` times the entry or the mean entry, or `atol`."""
        return self.excess <= 1

    @property
    def _xp(self) -> Any:
        from array_api_compat import array_namespace

        return array_namespace(self.value)

    def _bounds(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        if not 0 < level < 1:
            raise InvalidValueError(f"level must lie between 0 and 1, got {level}")
        from scipy.special import ndtri

        value = numbers(self.value, "the intervals' centres")
        if isinstance(self.law, Exactly):
            low = high = value
        else:
            low, high = self.law.bounds(value, numbers(self.std_error), level)
        slack = float(ndtri(0.5 + level / 2)) * self.about.get("floor", 0.0) * np.abs(value)
        return value - np.hypot(value - low, slack), value + np.hypot(high - value, slack)

    def __str__(self) -> str:
        value = numbers(self.value)
        shape = " × ".join(map(str, value.shape)) or "one"
        error = float(np.max(numbers(self.std_error)))
        return (
            f"partial traces over {self.axes}: {shape}, {np.min(value):.5g} to {np.max(value):.5g} ± at most "
            f"{error:.2g}, sum {number(self.total.value):.5g}  ({self.method}, {self.passes} passes)"
        )

    @property
    def axes(self) -> str:
        """The axes of `value` in words."""
        return ", ".join(name or f"axis {axis}" for axis, name in zip(self.over, self.names, strict=True)) or "no axis"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, ready for JSON."""
        plain = {
            **self._entries(),
            "over": list(self.over),
            "names": list(self.names),
            "total": self.total.to_dict(),
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
            plain["parts"] = {name: part._entries() for name, part in self.parts.items()}
        return plain

    def _entries(self) -> dict[str, Any]:
        low, high = self._bounds(0.95)
        return {
            "value": numbers(self.value).tolist(),
            "std_error": numbers(self.std_error).tolist(),
            "interval_95": [low.tolist(), high.tolist()],
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw one axis as points with their 95 % intervals, two as a heat map; needs matplotlib. Returns the axes.

        Raises
        ------
        InvalidValueError
            For more axes than two: take the traces over fewer.
        """
        from ..plots import heat_map, interval_curve

        value, words = numbers(self.value), [name or f"axis {a}" for a, name in zip(self.over, self.names, strict=True)]
        if value.ndim > 2:
            raise InvalidValueError(f"plots show one axis or two, not {value.ndim}; give partial_trace fewer in over=")
        if value.ndim == 2:
            return heat_map(value, words, "trace", ax)
        low, high = self._bounds(0.95)
        return interval_curve(np.atleast_1d(value), np.atleast_1d(low), np.atleast_1d(high), (*words, ""), "trace", ax)
