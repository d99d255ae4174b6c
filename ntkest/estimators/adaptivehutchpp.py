"""A-Hutch++: the budget split between an exact low-rank part and probes as the spectrum asks.

The data are those of `splitting`. Of B passes, k columns take c·k (c = 2 for a trace, 3 for a norm) and leave
l = B - c·k probes, whose mean has a variance of at most 2‖E_k‖_F²/l, for sign probes. Where ‖E_k‖_F² falls like
k^-p, that is least at

    c·k = B·p/(p + 1):

next to nothing on flat spectra, nearly all on steep ones, whatever ε is. The exponent is measured, at no passes, from
the triangle R of JᵀΩ = QR: with A = (RᵀR)⁻¹, 1/A_ii is ω_iᵀEω_i for the E that the columns other than i leave, and
-A_ij/(A_iiA_jj - A_ij²) is ω_iᵀEω_j for the E that those other than i and j leave; so the mean of the one is an
unbiased tr E_{k-1}, and the mean square of the other an unbiased ‖E_{k-2}‖_F². From k/2 columns to k, p is the larger
of the slope of ‖E‖_F² and twice the slope of tr E, which is less noisy, in logarithms. That slope does
not foresee that a flat E ends; so k may also go on where the passes left pay for tr(E)²/‖E‖_F² columns, E's effective
rank. Columns are added, at most doubling, until k has its share; all else of the budget goes to probes.

The choice depends on Ω alone, never on the probes, so that for a fixed budget traces and squares of norms stay
unbiased. With ``rtol=``, budgets grow until the interval (ε = rtol·value, δ = 0.05) is narrow enough, and every
split is made anew for the whole budget; columns and probes made before are kept. Sampling depends on the sequence of
budgets: two short runs are not the beginning of a long one.

Reference: Persson, Cortinovis, Kressner, "Improved variants of the Hutch++ algorithm for trace estimation", SIAM J.
Matrix Anal. Appl. 2022 (arXiv:2109.10659): it adds columns as long as the products then needed for a given (ε, δ) fall.
There a column costs two products with K and a probe one. Here they are counted in AD passes; ‖E_k‖_F comes from R, not
from ‖KQ‖_F, which would take a pass a column more; and the spread of the probes is left to the interval, with degrees
of freedom at a lower confidence limit, where the paper has tail bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

FIRST, RESERVE, ENOUGH = 4, 8, 12
"""A part 1/FIRST of a budget is for the first columns. At least 1/RESERVE is for probes, and a third up to ENOUGH for
each kernel: an error bar from fewer would be a matter of luck."""

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
    first: int = 16
    parts: bool = True
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
            Where a first budget does not pay for one column and `LEAST` probes.
        """
        assert probes.sketch is not None
        assert probes.cotangents is not None
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
    have = state.split.bases[0].count if state.split.bases else 0
    reserve = max(LEAST * kernels, min(ENOUGH * kernels, state.budget // 3), state.budget // RESERVE)
    most = min(space(problem) - have, (state.budget - state.spent - reserve) // price)
    if not have:
        room = (state.budget - LEAST * kernels) // price
        if room < 1:
            raise InvalidValueError(
                f"method='adaptive-hutch++' takes at least {price + LEAST * kernels + problem.targets} passes here, "
                f"for one column and {LEAST} probes; give it more, or use method='reverse' or 'forward'"
            )
        return min(max(LEAST, state.budget // (FIRST * price)), room, space(problem))
    if most < 1 or have < LEAST:
        return 0
    power, rank = _measure(problem, state)
    share = int(state.budget * power / (power + 1.0) / price)
    if power > 0 and rank * price <= state.budget - state.spent:
        share = max(share, have + math.ceil(rank))
    wanted = min(share - have, have, most)
    return wanted if wanted >= (WORTH - 1.0) * have else 0


def _measure(problem: Problem, state: Spent) -> tuple[float, float]:
    """The exponent p, 0 where E is nothing but rounding, and E's effective rank."""
    triangles = tuple(basis.triangles for basis in state.split.bases)
    k = int(triangles[0][0].shape[0])
    h = max(3, k // 2)
    traces, squares = problem.on_host(_decay, h)(triangles)
    if not is_concrete(squares[1]):
        raise TracedValueError(
            "method='adaptive-hutch++' decides from values how to split its passes, which cannot be traced; inside "
            "jit, grad or vmap use method='nystrom++', whose split is fixed"
        )
    (t0, t1), (s0, s1) = map(number, traces), map(number, squares)
    J = problem.kernels[0].J
    if not s1 > eps(problem.xp, J.outputs, *J.params) ** 2 * state.budget:
        return 0.0, 0.0
    by_trace = 2.0 * math.log(t0 / t1) / math.log((k - 1) / (h - 1))
    by_square = math.log(s0 / s1) / math.log((k - 2) / (h - 2))
    return max(0.0, by_trace, by_square), t1 * t1 / s1


def _decay(
    xp: ModuleType, h: int, triangles: tuple[tuple[Array, ...], ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Tr E over tr K, and ‖E‖_F² over tr(K)², from h columns and from all, over parts and kernels; array-only."""
    wide = [[xp.astype(r, accumulator(xp, r), copy=False) for r in parts] for parts in triangles]
    k, tiny = wide[0][0].shape[0], float(xp.finfo(wide[0][0].dtype).smallest_normal) * 1e3
    scaled = []
    for parts in wide:
        length = (sum((xp.sum(r * r) for r in parts[1:]), xp.sum(parts[0] * parts[0])) / k + tiny) ** 0.5
        scaled += [r / length for r in parts]
    traces, squares = zip(*(_residuals(xp, n, scaled) for n in (h, k)), strict=True)
    return traces, squares


def _residuals(xp: ModuleType, n: int, triangles: Sequence[Array]) -> tuple[Array, Array]:
    """Both of `_residual` from n columns, summed over triangles."""
    found = [_residual(xp, r[:n, :n]) for r in triangles]
    traces, squares = (xp.stack(column, axis=0) for column in zip(*found, strict=True))
    return xp.sum(traces), xp.sum(squares)


def _residual(xp: ModuleType, triangle: Array) -> tuple[Array, Array]:
    """Means of ω_iᵀEω_i and of (ω_iᵀEω_j)² over i ≠ j, where E is K less what all other columns tell of it.

    The triangle is scaled to entries near 1; where its diagonal is nothing but rounding, it is lifted to that.
    """
    n = triangle.shape[0]
    ones = beside(xp, np.eye(n), triangle)
    diagonal = xp.linalg.diagonal(triangle)
    least = eps(xp, triangle)
    lifted = xp.where(xp.abs(diagonal) > least, diagonal * 0, diagonal * 0 + 2 * least)
    inverse = xp.linalg.inv(triangle + ones * lifted[:, None])
    gram = inverse @ inverse.T  # (RᵀR)⁻¹
    root = xp.linalg.diagonal(gram) ** 0.5
    cosine = gram / root[:, None] / root[None, :] * (1.0 - ones)
    sine = xp.maximum(1.0 - cosine * cosine, eps(xp, triangle) + 0 * cosine)
    trace = xp.mean(1.0 / (root * root))
    return trace, xp.sum((cosine / sine / root[:, None] / root[None, :]) ** 2) / (n * (n - 1))
