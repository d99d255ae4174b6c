"""A-Hutch++: the budget split between an exact low-rank part and probes as the spectrum asks.

The data are those of `splitting`. Of B passes, k columns take c·k (c = 2 for a trace, 3 for a norm) and leave
l = B - c·k probes, whose mean has a variance of at most 2‖E_k‖_F²/l, for sign probes. Where ‖E_k‖_F² falls like
k^-p, that is least at

    c·k = B·p/(p + 1):

next to nothing on flat spectra, nearly all on steep ones, whatever ε is. The exponent is measured, at no passes, from
the triangle R of JᵀΩ = QR: with A = (RᵀR)⁻¹, -A_ij/(A_iiA_jj - A_ij²) is ω_iᵀEω_j for the E that columns other
than i and j leave, so that its mean square over i ≠ j is an unbiased ‖E_{k-2}‖_F². Columns are added, at most doubling,
until k has its share; all else of the budget goes to probes.

The choice depends on Ω alone, never on the probes, so that for a fixed budget traces and squares of norms stay
unbiased. With ``rtol=``, budgets grow until the interval (ε = rtol·value, δ = 0.05) is narrow enough, and every
split is made anew for the whole budget; columns and probes made before are kept. Sampling depends on the sequence of
budgets: two short runs are not the beginning of a long one.

Reference: Persson, Cortinovis, Kressner, "Improved variants of the Hutch++ algorithm for trace estimation", SIAM J.
Matrix Anal. Appl. 2022, section 2: it adds columns as long as the products then needed for a given (ε, δ) fall. There
a column costs two products with K and a probe one. Here they are counted in AD passes; ‖E_k‖_F comes from R, not from
‖KQ‖_F, which would take a pass a column more; and the spread of the probes is left to the interval, with degrees of
freedom at a lower confidence limit, where the paper has tail bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from ..linearization import (
    Array,
    InvalidValueError,
    TracedValueError,
    accumulator,
    beside,
    eps,
    is_concrete,
    leading,
    number,
)
from ..probes import SKETCH, Probes, draw_cotangents
from .problem import Key, Moment, Problem
from .splitting import State, add_columns, add_probes, begin, column_cost, remainder_moments, space

LEAST = 4
"""Columns from which an exponent can be measured, and probes that give a mean and an error bar."""

SHARE = 8
"""Part 1/SHARE of a budget goes to the first columns, and at least as much to probes."""

WORTH = 1.25
"""Columns are added in steps of at least this factor: a smaller one would cost more in rounds than it gains."""


@dataclass(frozen=True)
class Spent:
    """A split, and its price."""

    split: State
    budget: int = 0
    """Passes so far, those for targets apart."""
    spent: int = 0
    """Passes of them that were spent: a rest may be too small for a column or a probe."""


@dataclass(frozen=True)
class AdaptiveHutchPP:
    """The estimator. A sample is a pass a kernel; how many become columns is decided on the way."""

    name: str = "adaptive-hutch++"
    fewest: int = 12
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    resumable: bool = False

    def passes(self, problem: Problem, samples: int) -> int:
        """What `samples` may cost at most."""
        return samples * len(problem.kernels) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """Passes for each kernel."""
        return (passes - problem.targets) // len(problem.kernels)

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` samples."""
        return (want - have) * len(problem.kernels)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """As many columns and probes as the passes could pay for if all went to either."""
        first = problem.kernels[0].J
        signs = draw_cotangents(first, seed, start, stop)
        return Probes(cotangents=signs, sketch=draw_cotangents(first, seed, start // 2, stop // 2, SKETCH))

    def extend(self, problem: Problem, state: Spent | None, probes: Probes) -> Spent:
        """Spend the passes of new samples.

        Raises
        ------
        TracedValueError
            Where a framework is tracing, for the split depends on values.
        InvalidValueError
            Where a first budget pays for fewer than `LEAST` columns and probes.
        """
        assert probes.sketch is not None and probes.cotangents is not None
        state = Spent(begin(problem)) if state is None else state
        state = replace(state, budget=state.budget + self.growth(problem, 0, leading(probes.cotangents)))
        kernels, column = len(problem.kernels), column_cost(problem)
        used = 0
        while wanted := min(_columns(problem, state), leading(probes.sketch) - used):
            split = add_columns(problem, state.split, probes.sketch[used : used + wanted, ...])
            state = replace(state, split=split, spent=state.spent + wanted * column)
            used += wanted
        signs = probes.cotangents[: (state.budget - state.spent) // kernels, ...]
        spent = state.spent + leading(signs) * kernels
        return replace(state, split=add_probes(problem, state.split, signs), spent=spent)

    def moments(self, problem: Problem, state: Spent) -> dict[Key, Moment]:
        """The exact parts plus what the remainder averages."""
        return {**remainder_moments(problem, state.split), **state.split.targets}


ADAPTIVEHUTCHPP = AdaptiveHutchPP()


def _columns(problem: Problem, state: Spent) -> int:
    """How many columns to add now; 0 once k has its share."""
    kernels, price = len(problem.kernels), column_cost(problem)
    have = leading(state.split.bases[0]) if state.split.bases else 0
    reserve = max(LEAST * kernels, state.budget // SHARE)
    most = min(space(problem) - have, (state.budget - state.spent - reserve) // price)
    if not have:
        least = LEAST * (price + kernels)
        if state.budget < least:
            raise InvalidValueError(
                f"method='adaptive-hutch++' takes at least {least + problem.targets} passes here, {LEAST} columns and "
                f"{LEAST} probes; give it more, or use method='reverse' or 'forward'"
            )
        return min(max(LEAST, state.budget // (SHARE * price)), space(problem), max(most, LEAST))
    if most < 1 or have < LEAST:
        return 0
    power = _exponent(problem, state)
    share = int(state.budget * power / (power + 1.0) / price)
    wanted = min(share - have, have, most)
    return wanted if wanted >= (WORTH - 1.0) * have else 0


def _exponent(problem: Problem, state: Spent) -> float:
    """P in ‖E_k‖_F² ∝ k^-p between half of the columns and all; 0 where E is nothing but rounding."""
    triangles = state.split.triangles
    k = int(triangles[0][0].shape[0])
    h = max(3, k // 2)
    rule = problem.compiled(_residuals, problem.xp, h)
    half, whole = rule(triangles)
    if not is_concrete(whole):
        raise TracedValueError(
            "method='adaptive-hutch++' decides from values how to split its passes, which cannot be traced; inside "
            "jit, grad or vmap use method='nystrom++', whose split is fixed"
        )
    before, now = number(half), number(whole)
    J = problem.kernels[0].J
    if not now > eps(problem.xp, J.outputs, *J.params) ** 2 * state.budget:
        return 0.0
    return max(0.0, math.log(max(before, now) / now) / math.log((k - 2) / (h - 2)))


def _residuals(xp: ModuleType, h: int, triangles: tuple[tuple[Array, ...], ...]) -> tuple[Array, Array]:
    """‖E_{h-2}‖_F² and ‖E_{k-2}‖_F² over tr(K)², summed over parts and kernels; array-only."""
    sums: list[Array] = []
    for n in (h, triangles[0][0].shape[0]):
        total: Array = 0.0
        for parts in triangles:
            wide = [xp.astype(r, accumulator(xp, r), copy=False) for r in parts]
            square = sum((xp.sum(r * r) for r in wide[1:]), xp.sum(wide[0] * wide[0]))
            scale = (square + float(xp.finfo(square.dtype).smallest_normal) * 1e3) ** 0.5
            for r in wide:
                total = total + _residual(xp, r[:n, :n] / scale) * r.shape[0] ** 2
        sums.append(total)
    return sums[0], sums[1]


def _residual(xp: ModuleType, triangle: Array) -> Array:
    """The mean over i ≠ j of (ω_iᵀEω_j)², where E is K less what all other columns tell of it."""
    n = triangle.shape[0]
    ones = beside(xp, np.eye(n), triangle)
    diagonal = xp.linalg.diagonal(triangle)
    least = eps(xp, triangle) * xp.max(xp.abs(diagonal))
    lifted = xp.where(xp.abs(diagonal) > least, diagonal * 0, least + diagonal * 0)
    inverse = xp.linalg.inv(triangle + ones * lifted[:, None])
    gram = inverse @ inverse.T  # (RᵀR)⁻¹
    root = xp.linalg.diagonal(gram) ** 0.5
    cosine = gram / root[:, None] / root[None, :] * (1.0 - ones)
    sine = xp.maximum(1.0 - cosine * cosine, eps(xp, triangle) + 0 * cosine)
    return xp.sum((cosine / sine / root[:, None] / root[None, :]) ** 2) / (n * (n - 1))
