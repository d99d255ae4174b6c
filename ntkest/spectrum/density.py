"""The density of eigenvalues of K, smoothed by a Gaussian kernel, with error bars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..linearization import InvalidTypeError, InvalidValueError, Linearization, ZeroKernelError
from ..probes import check_seed
from ..quantities import setting
from ..sampling import Plan
from .quadrature import Rule
from .results import costs
from .sampler import Budget, fixed
from .sides import ROUNDING, Operator
from .whole import exact, exact_passes

STEPS = 30
"""Steps of each run, where the budget is enough for ten probes of so many."""

WIDTHS = {"linear": 0.03, "log": 0.15}
"""Default widths: a share of the largest eigenvalue, and decades."""

POWERS = np.arange(1, 5)
"""Of the moments."""


@dataclass(frozen=True)
class SpectralDensity:
    """A smoothed density of the M eigenvalues of K. All arrays are NumPy's, float64."""

    grid: np.ndarray
    """(g,) eigenvalues at which it is evaluated."""
    density: np.ndarray
    """(g,): share of eigenvalues per unit of λ, or per decade with ``scale="log"``."""
    std_error: np.ndarray
    """(g,): spread over probes, and the difference of Gauss and Gauss–Radau quadrature."""
    cumulative: np.ndarray
    """(g,): share of eigenvalues below, smoothed likewise."""
    cumulative_error: np.ndarray
    """(g,)"""
    zeros: float
    """Share of eigenvalues that are zero, or too small for the steps to tell. On a log scale they are in
    `cumulative` but not in `density`."""
    zeros_error: float
    """Its standard error, with the share that may be small and not zero."""
    moments: np.ndarray
    """(4,): means of λ, λ², λ³ and λ⁴."""
    moment_errors: np.ndarray
    """(4,)"""
    scale: str
    """"linear" or "log"."""
    width: float
    """Standard deviation of the Gaussian kernel: in units of λ, or in decades."""
    nodes: np.ndarray = field(repr=False)
    """(m, n): quadrature nodes of each probe; all eigenvalues (1, M) if exact."""
    weights: np.ndarray = field(repr=False)
    """(m, n): their weights, as shares of eigenvalues."""
    passes: int
    """AD passes spent."""
    n_jvp: int
    """JVPs among them."""
    n_vjp: int
    """VJPs among them."""
    method: str
    """"exact" or "quadrature"."""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Seed, steps, dtype, device and versions."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        arrays = ("grid", "density", "std_error", "cumulative", "cumulative_error", "moments", "moment_errors")
        plain = ("zeros", "zeros_error", "scale", "width", "passes", "n_jvp", "n_vjp", "method")
        return {
            "quantity": "spectral_density",
            **{name: getattr(self, name).tolist() for name in (*arrays, "nodes", "weights")},
            **{name: getattr(self, name) for name in plain},
            **self.about,
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the density with a band of two standard errors; needs matplotlib. Returns the axes."""
        from ..plots import axes_or_new

        ax = axes_or_new(ax)
        ax.plot(self.grid, self.density, color="C0")
        low, high = self.density - 2 * self.std_error, self.density + 2 * self.std_error
        ax.fill_between(self.grid, np.maximum(low, 0), high, color="C0", alpha=0.25, linewidth=0)
        ax.set_xscale(self.scale)
        ax.set_xlabel("eigenvalue of K")
        ax.set_ylabel("share of eigenvalues" + (" per decade" if self.scale == "log" else " per unit"))
        ax.grid(alpha=0.3)
        return ax


def spectral_density(
    J: Linearization,
    *,
    scale: str = "log",
    width: float | None = None,
    points: int = 200,
    grid: Any = None,
    method: str = "auto",
    passes: int = 1000,
    steps: int | None = None,
    seed: int = 0,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
) -> SpectralDensity:
    """How the eigenvalues of K are distributed: their density and cumulative distribution on a grid.

    Parameters
    ----------
    J : Linearization
    scale : "log" or "linear"
        Of the eigenvalues. On a log scale the density is per decade, and zeros are kept apart, in `zeros`.
    width : float, optional
        Standard deviation of the Gaussian kernel, in decades or in units of λ; default 0.15 decades, or 0.03 λ₁.
        Narrow kernels need many steps: n steps tell apart what is some λ₁/n from each other.
    points : int
        Size of the grid, which spans all eigenvalues that were seen.
    grid : array, optional
        Eigenvalues to evaluate it at instead.
    method : "auto", "exact" or "quadrature"
    passes : int
        AD passes to spend; "auto" takes all of J where that costs no more.
    steps : int, optional
        Steps of each run; by default 30, or fewer so that ten probes can be paid for.
    seed, centered, memory, chunk
        As in `ntkest.quantities`.

    Raises
    ------
    ZeroKernelError
        K = 0: all eigenvalues are 0.

    References
    ----------
    Lin, Saad, Yang, "Approximating spectral densities of large matrices", SIAM Review 2016; Ghorbani, Krishnan, Xiao,
    "An investigation into neural net optimization via Hessian eigenvalue density", ICML 2019.
    """
    if scale not in WIDTHS:
        raise InvalidValueError(f"scale= takes 'log' or 'linear', not {scale!r}")
    if method not in ("auto", "exact", "quadrature"):
        raise InvalidValueError(f"method= takes one of auto, exact, quadrature, not {method!r}")
    _check_shape(width, points)
    seed = check_seed(seed)
    plan = Plan(passes=passes, seed=seed)
    operator = Operator.of(J, centered, memory, chunk)
    if steps is None:
        steps = max(4, min(STEPS, passes // (10 * operator.step_passes())))
    budget = Budget(plan, min(steps, max(2, operator.space(operator.left))))
    about = {"seed": seed, **setting(J)}
    if method == "auto":
        method = "exact" if exact_passes(operator) <= passes else "quadrature"
    if method == "exact":
        rules = [_exact_rule(operator)]
    else:
        operator.check_both("quadrature")
        samples = fixed(operator, budget)
        rules = [_shares(operator, rule) for rule in (samples.radau(), samples.gauss())]
        about["steps"] = samples.steps
    axis = _Axis.of(rules[0], scale, width, points, grid, operator)
    return _density(rules, axis, operator, method, about)


@dataclass(frozen=True)
class _Axis:
    """Where and how the density is evaluated."""

    scale: str
    grid: np.ndarray
    width: float
    cut: float
    """Eigenvalues up to here are zero."""

    @staticmethod
    def of(rule: Rule, scale: str, width: float | None, points: int, grid: Any, operator: Operator) -> _Axis:
        """What was asked for, and else what fits the nodes."""
        seen = rule.nodes[rule.weights > 1e-9]
        largest = float(np.max(seen, initial=0.0))
        if largest == 0:
            raise ZeroKernelError("the kernel is zero: all of its eigenvalues are 0")
        cut = largest * (ROUNDING * operator.eps) ** 2
        if width is None:
            width = WIDTHS[scale] * (largest if scale == "linear" else 1.0)
        if grid is not None:
            return _Axis(scale, _checked_grid(grid, scale), width, cut)
        if scale == "linear":
            return _Axis(scale, np.linspace(0.0, largest + 3 * width, points), width, cut)
        smallest = float(np.min(seen[seen > cut]))
        low, high = math.log10(smallest) - 3 * width, math.log10(largest) + 3 * width
        return _Axis(scale, np.logspace(low, high, points), width, cut)

    def smoothed(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """Density and cumulative distribution of each probe, (m, g)."""
        from scipy.special import ndtr

        m = rule.nodes.shape[0]
        density, cumulative = np.zeros((2, m, len(self.grid)))
        places = np.log10(self.grid) if self.scale == "log" else self.grid
        for i in range(m):
            nodes, weights = rule.nodes[i], rule.weights[i]
            if self.scale == "log":
                some = nodes > self.cut
                cumulative[i] = np.sum(weights[~some])
                nodes, weights = np.log10(nodes[some]), weights[some]
            z = (places[:, None] - nodes[None, :]) / self.width  # (g, n)
            density[i] = np.exp(-0.5 * z * z) @ weights / (self.width * math.sqrt(2 * math.pi))
            cumulative[i] += ndtr(z) @ weights
        return density, cumulative


def _density(rules: list[Rule], axis: _Axis, operator: Operator, method: str, about: dict[str, Any]) -> SpectralDensity:
    """Means over probes of the first rule, and error bars from their spread and from the other rule."""
    smooth = [axis.smoothed(rule) for rule in rules]
    density, cumulative = (_mean([both[i] for both in smooth]) for i in (0, 1))
    zeros = _mean([np.sum(np.where(r.nodes <= axis.cut, r.weights, 0.0), axis=1, keepdims=True) for r in rules])
    powers = [np.sum(r.weights[:, :, None] * r.nodes[:, :, None] ** POWERS, axis=1) for r in rules[:1]]
    moments = _mean(powers)
    return SpectralDensity(
        grid=axis.grid,
        density=density[0],
        std_error=density[1],
        cumulative=cumulative[0],
        cumulative_error=cumulative[1],
        zeros=float(zeros[0][0]),
        zeros_error=float(zeros[1][0]),
        moments=moments[0],
        moment_errors=moments[1],
        scale=axis.scale,
        width=axis.width,
        nodes=rules[0].nodes,
        weights=rules[0].weights,
        method=method,
        about=about,
        **costs(operator),
    )


def _mean(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over probes of the first (m, …), and its standard error with the difference to the second."""
    mean = np.mean(values[0], axis=0)
    m = len(values[0])
    error = np.std(values[0], axis=0, ddof=1) / math.sqrt(m) if m > 1 else np.zeros(mean.shape)
    if len(values) > 1:
        error = np.hypot(error, np.abs(mean - np.mean(values[1], axis=0)))
    return mean, error


def _exact_rule(operator: Operator) -> Rule:
    """All eigenvalues, as one probe."""
    found = exact(operator, operator.outputs, vectors=False)
    sizes = np.where(found.sizes > ROUNDING * operator.eps * found.largest, found.sizes, 0.0)
    return Rule(sizes[None, :] ** 2 * operator.scale, np.full((1, operator.outputs), 1 / operator.outputs))


def _shares(operator: Operator, rule: Rule) -> Rule:
    """Weights as shares of M, and a node at 0 for the zeros that probes on the parameter side do not see."""
    M, seen = operator.outputs, operator.size(operator.left)
    m = rule.nodes.shape[0]
    nodes, weights = np.zeros((2, m, rule.nodes.shape[1] + 1))
    nodes[:, 1:], weights[:, 1:], weights[:, 0] = rule.nodes, rule.weights / M, (M - seen) / M
    return Rule(nodes, weights)


def _check_shape(width: Any, points: Any) -> None:
    for name, value, kinds in (("width", width, int | float | np.floating), ("points", points, int | np.integer)):
        if value is None and name == "width":
            continue
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise InvalidTypeError(f"{name}= takes a positive number, not {value!r}")
        if not 0 < value < math.inf or (name == "points" and value < 2):
            raise InvalidValueError(f"{name}= takes a positive number{' from 2 on' * (name == 'points')}, not {value}")


def _checked_grid(grid: Any, scale: str) -> np.ndarray:
    try:
        numbers = np.asarray(grid, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"grid= takes an array of eigenvalues, not {grid!r}") from error
    if numbers.ndim != 1 or not len(numbers) or not np.all(np.isfinite(numbers)):
        raise InvalidValueError(f"grid= takes finite eigenvalues along one axis, not shape {numbers.shape}")
    if scale == "log" and not np.all(numbers > 0):
        raise InvalidValueError("grid= takes positive eigenvalues with scale='log'")
    return numbers
