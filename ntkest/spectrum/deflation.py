"""Leading eigenvectors taken out of the noise: their share of a trace is known, and probes see the rest only.

With orthonormal rows X that are nearly left singular vectors, tr f(K) = Σ x f(K) xᵀ + E ω'ᵀ f(K) ω', ω' = (I - XᵀX) ω.
Each term of the first sum is integrated by the quadrature rules with one step from x, whose coefficients the
bidiagonalisation that found X has left behind: α = σ and β = ‖K x - σ²x‖/σ. So it costs no passes, and Gauss and
Gauss–Radau rules say how far it is off. Worth its cost where few eigenvalues make most of the variance.

Reference: Meyer, Musco, Musco, Woodruff, "Hutch++", SOSA 2021, for the split; Jin and Hendrickson, "Faster randomized
methods for trace estimation of functions", and Chen and Hallman, "Krylov-aware stochastic trace estimation", SIMAX
2023, for functions of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..linearization import Blocks
from .blocks import deflate
from .krylov import block_size, holds, iterate
from .quadrature import Function, Rule
from .sides import ROUNDING, Operator

RESIDUAL = 0.03
"""Vectors with residuals up to this share of their eigenvalue are taken out at most: one step errs by its square."""

STEPS = 4
"""Block steps that finding them takes, about."""

WORTH = 0.7
"""The share of the cost that taking vectors out must come down to."""

CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""How many vectors to think of."""


@dataclass(frozen=True)
class Leaders:
    """Left singular vectors, nearly, with what is known of each."""

    rows: Blocks
    alphas: np.ndarray
    """(k, 1): singular values of the scaled operator."""
    betas: np.ndarray
    """(k, 1)"""

    @property
    def largest(self) -> float:
        """σ₁ of the scaled operator."""
        return float(self.alphas[0, 0])

    def without(self, operator: Operator, rows: Blocks) -> Blocks:
        """`rows` less their components along the leaders."""
        for _ in range(2):
            rows = operator.compiled(_deflated)(rows, self.rows)
        return rows


def leaders(operator: Operator, count: int, residual: float, max_passes: int, seed: int) -> Leaders | None:
    """About `count` leading vectors, or as many as `max_passes` find; None if that is none.

    `residual` is the largest ‖K x - σ²x‖ that a vector may have, relative to σ².
    """
    block = block_size(operator, count)
    if block * operator.step_passes() > max_passes:
        return None

    def stop(run: object) -> bool:
        ritz = run.ritz()  # type: ignore[attr-defined]
        return bool(np.all(ritz.residuals[:count] <= residual * ritz.values[:count] ** 2))

    limit = operator.problem.passes + max_passes
    run, *_ = iterate(operator, block, stop, limit, seed, lambda spent, expected: None)
    ritz = run.ritz()
    noise = ROUNDING * operator.eps * ritz.values[0]
    good = (ritz.values > noise) & (ritz.residuals <= residual * ritz.values**2)
    if not np.any(good):
        return None
    sizes = ritz.values[good][:, None]
    return Leaders(run.vectors(ritz.left[:, good]), sizes, ritz.residuals[good][:, None] / sizes)


def worthwhile(
    operator: Operator, rule: Rule, weighted: bool, influence: Function, probes: float, each: int
) -> tuple[int, float]:
    """How many vectors to take out so that passes are fewest, 0 for none; and how many these will be.

    `rule` holds what a pilot saw, `influence` what an eigenvalue adds to the quantity, and `probes` of `each` passes
    are needed as things are.
    """
    seen = rule.nodes > 1e-12 * np.max(rule.nodes, initial=0.0)
    nodes, weights = rule.nodes[seen], rule.weights[seen] / len(rule.nodes)
    if weighted:
        weights = weights * operator.scale / nodes
    order = np.argsort(-nodes)
    squares = weights[order] * influence(nodes[order]) ** 2
    counted, summed = np.cumsum(weights[order]), np.cumsum(squares)
    if not len(summed) or not summed[-1] > 0:
        return 0, probes * each
    costs = {0: probes * each}
    for count in CANDIDATES:
        block = block_size(operator, count)
        if 2 * block > operator.rank or not holds(operator, block):
            break
        covered = summed[counted <= count + 0.5]
        rest = 1.0 - (covered[-1] / summed[-1] if len(covered) else 0.0)
        costs[count] = STEPS * block * operator.step_passes() + max(8.0, probes * rest) * each
    best = min(costs, key=lambda count: costs[count])
    best = best if costs[best] < WORTH * costs[0] else 0
    return best, costs[best]


def _deflated(xp: ModuleType, rows: Blocks, basis: Blocks) -> Blocks:
    return deflate(xp, rows, basis)
