"""Gauss quadrature of the spectrum seen from probes: Golub–Kahan from many vectors at once.

From u₁ = ω/‖ω‖ the recurrence Jᵀu_j = β_j v_{j-1} + α_j v_j, J v_j = α_j u_j + β_{j+1} u_{j+1} makes a bidiagonal B
with B Bᵀ = UᵀKU, so that for polynomials f of degree up to 2n - 1

    ωᵀ f(K) ω = ‖ω‖² Σ_j w_j f(θ_j),    θ_j = σ_j(B)², w_j = (first entry of the j-th left singular vector)².

With β_{n+1} as one more row the same holds with a further node at 0 and for degree 2n (Gauss–Radau). Where
the derivatives of f have alternating signs, as for log(λ + c), √λ and 1/(λ + c), the two rules bracket the integral.
Nodes are never negative. All probes advance together, so that each step is one batch of passes.

Reference: Golub and Meurant, "Matrices, moments and quadrature with applications", 2010; Ubaru, Chen, Saad, "Fast
estimation of tr f(A) via stochastic Lanczos quadrature", SIMAX 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..linearization import Array, Blocks, NonFiniteError, ShapeError, scalar_dtype
from ..tangents import SquareNorms
from .sides import ROUNDING, Operator, host

Function = Callable[[np.ndarray], np.ndarray]
"""A function of eigenvalues, on NumPy arrays."""


NEGLIGIBLE = 1e-28
"""Weights below this share are rounding errors: their nodes belong to what the probe does not see."""


@dataclass(frozen=True)
class Rule:
    """Nodes (m, n) of m probes, and their weights."""

    nodes: np.ndarray
    weights: np.ndarray

    def integrals(self, f: Function) -> np.ndarray:
        """Σ_j w_j f(θ_j) for each probe, (m,). Nodes without weight are not looked at.

        Raises
        ------
        ShapeError, NonFiniteError
        """
        some = self.weights > NEGLIGIBLE * np.sum(self.weights, axis=1, keepdims=True)
        values = np.zeros(self.nodes.shape)
        values[some] = evaluated(f, self.nodes[some])
        return np.asarray(np.sum(np.where(some, self.weights, 0.0) * values, axis=1))


def evaluated(f: Function, values: np.ndarray, strict: bool = True) -> np.ndarray:
    """F at eigenvalues, as float64 of the same shape; finite if `strict`.

    Raises
    ------
    ShapeError, NonFiniteError
    """
    with np.errstate(all="ignore"):
        found = np.asarray(f(values))
    if found.shape != values.shape or found.dtype.kind not in "fiub":
        raise ShapeError(
            f"f must map an array of eigenvalues to as many real numbers; from shape {values.shape} it made "
            f"{found.dtype} of shape {found.shape}"
        )
    found = found.astype(np.float64)
    if strict and not np.all(np.isfinite(found)):
        worst = values[~np.isfinite(found)][0]
        raise NonFiniteError(
            f"f is not finite at the eigenvalue {worst:.3g}; for log and inverse powers add a ridge: f(λ + ridge)"
        )
    return found


class LockStep:
    """Golub–Kahan runs from m vectors on the left, all at the same step; `advance` costs m passes each way."""

    def __init__(self, operator: Operator, start: Blocks, largest: float = 0.0) -> None:
        """With `largest`, σ₁ of the operator where it is known: start vectors may have nothing of it."""
        self.operator = operator
        self.basis: list[Blocks] = []
        self._alphas: list[Array] = []
        self._betas: list[Array] = []
        norms = operator.compiled(_norms)(start)
        self.masses = host(norms) ** 2
        """(m,): ‖ω‖²."""
        self._scale = norms * 0.0
        self._u, _ = operator.compiled(_normalised, 0.0)(start, self._scale)
        self._scale = self._scale + largest
        self._v: Blocks | None = None

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self._alphas)

    def advance(self) -> None:
        """One step of every run. Runs whose space is exhausted stand still, at the same cost."""
        run, noise = self.operator.compiled, ROUNDING * self.operator.eps
        u, self.basis = self._u, [*self.basis, self._u]
        images = self.operator.push(u)
        if self._v is not None:
            images = run(_recurrence)(images, self._betas[-1], self._v)
        v, alpha = run(_normalised, noise)(images, self._scale)
        scale = self.operator.xp.maximum(self._scale, alpha)
        back = run(_recurrence)(self.operator.pull(v), alpha, u)
        for _ in range(2):
            for other in self.basis:
                back = run(_deflated)(back, other)
        following, beta = run(_normalised, noise)(back, scale)
        self._scale = self.operator.xp.maximum(scale, beta)
        self._u, self._v = following, v
        self._alphas.append(alpha)
        self._betas.append(beta)

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """α_1 … α_n and β_2 … β_{n+1}, (m, n) each: the one reading from the device."""
        both = host(self.operator.xp.stack([*self._alphas, *self._betas], axis=1))
        return both[:, : self.steps], both[:, self.steps :]


def gauss(alphas: np.ndarray, betas: np.ndarray, masses: np.ndarray) -> Rule:
    """The rule with n nodes from α_1 … α_n and β_2 … β_n."""
    left, sizes, _ = np.linalg.svd(_bidiagonal(alphas, betas)[:, :-1, :])
    return Rule(sizes**2, masses[:, None] * left[:, 0, :] ** 2)


def radau(alphas: np.ndarray, betas: np.ndarray, masses: np.ndarray) -> Rule:
    """The rule with n + 1 nodes, one of them 0, from β_{n+1} too."""
    left, sizes, _ = np.linalg.svd(_bidiagonal(alphas, betas))
    return Rule(np.pad(sizes**2, ((0, 0), (0, 1))), masses[:, None] * left[:, 0, :] ** 2)


def scaled(rule: Rule, factor: float) -> Rule:
    """The rule for eigenvalues that are `factor` times as large."""
    nodes = rule.nodes * factor
    if not np.all(np.isfinite(nodes)):
        raise NonFiniteError("an eigenvalue leaves the range of float64; rescale the outputs")
    return Rule(nodes, rule.weights)


def _bidiagonal(alphas: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """(m, n + 1, n), with α on the diagonal and β below it."""
    m, n = alphas.shape
    matrix = np.zeros((m, n + 1, n))
    matrix[:, np.arange(n), np.arange(n)] = alphas
    matrix[:, np.arange(1, n + 1), np.arange(n)] = betas
    return matrix


def _norms(xp: ModuleType, rows: Blocks) -> Array:
    """(m,), in the dtype of the vectors."""
    squares = SquareNorms(xp, (0,) * len(rows), 1)(rows)[:, 0]
    return xp.astype(squares**0.5, scalar_dtype(xp, rows[0]), copy=False)


def _normalised(xp: ModuleType, noise: float, rows: Blocks, scale: Array) -> tuple[Blocks, Array]:
    """Unit vectors and norms; zeros where the norm is rounding, relative to the `scale` of that run."""
    norms = _norms(xp, rows)
    some = norms > noise * scale
    inverse = xp.where(some, 1.0 / xp.where(some, norms, norms * 0 + 1), norms * 0)
    return _times(xp, inverse, rows), xp.where(some, norms, norms * 0)


def _recurrence(xp: ModuleType, rows: Blocks, coefficients: Array, others: Blocks) -> Blocks:
    """Row i less coefficient i times the other's row i."""
    return tuple(a - b for a, b in zip(rows, _times(xp, coefficients, others), strict=True))


def _deflated(xp: ModuleType, rows: Blocks, others: Blocks) -> Blocks:
    """Row i without its component along the other's row i."""
    total = None
    for a, b in zip(rows, others, strict=True):
        product = xp.astype(xp.sum(a * b, axis=1), scalar_dtype(xp, rows[0]), copy=False)
        total = product if total is None else total + product
    return _recurrence(xp, rows, total, others)


def _times(xp: ModuleType, factors: Array, rows: Blocks) -> Blocks:
    return tuple(xp.astype(factors, a.dtype, copy=False)[:, None] * a for a in rows)
