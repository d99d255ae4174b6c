"""How many probes, and how many steps from each: a fixed cost, or until a tolerance is met.

The error of a quadrature has two parts. Too few steps truncate it, which more probes do not mend; so the first batch
takes steps until that part is a small share of the tolerance, and all others as many. The number of probes then follows
from the spread, as for other estimators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..estimate import Estimate
from ..linearization import InvalidTypeError, InvalidValueError, number
from ..progress import progress_of
from ..sampling import Plan
from .deflation import RESIDUAL, Leaders, leaders, worthwhile
from .quadrature import Function, LockStep, Rule, gauss, radau, scaled
from .sides import Operator

FIRST = 16
"""Probes of the first batch."""

STEPS = 20
"""Steps that a fixed cost is spent on, if it is large enough for eight probes of so many."""

FEWEST_STEPS = 4
"""Steps before the first look at truncation."""

MOST_STEPS = 100
"""Steps past which more probes are thought of more use."""

SHARE = 0.1
"""The share of the tolerance that truncation may take."""

SPREAD = 0.2
"""The share of the error that truncation may take in a pilot, which is to see what the spread comes from."""


@dataclass(frozen=True)
class Samples:
    """Coefficients of the recurrence from m probes over n steps."""

    operator: Operator
    alphas: np.ndarray
    """(m, n)"""
    betas: np.ndarray
    """(m, n): β_2 … β_{n+1}."""
    masses: np.ndarray
    """(m,)"""
    leaders: Leaders | None = None
    """Vectors that probes have no component along."""

    @property
    def known(self) -> Samples | None:
        """The leaders as samples of their own, of one step and mass one."""
        if self.leaders is None:
            return None
        alphas, betas = self.leaders.alphas, self.leaders.betas
        return Samples(self.operator, alphas, betas, np.ones(len(alphas)))

    @property
    def deflated(self) -> int:
        """The number of leaders."""
        return 0 if self.leaders is None else len(self.leaders.alphas)

    @property
    def count(self) -> int:
        """M."""
        return int(self.alphas.shape[0])

    @property
    def steps(self) -> int:
        """N."""
        return int(self.alphas.shape[1])

    def gauss(self, fewer: int = 0) -> Rule:
        """Nodes of K, from all but the last `fewer` steps."""
        n = max(1, self.steps - fewer)
        return scaled(gauss(self.alphas[:, :n], self.betas[:, :n], self.masses), self.operator.scale)

    def radau(self) -> Rule:
        """Nodes of K, one of them 0."""
        return scaled(radau(self.alphas, self.betas, self.masses), self.operator.scale)

    def and_more(self, more: Samples) -> Samples:
        """With further probes of as many steps."""
        pairs = ((getattr(self, name), getattr(more, name)) for name in ("alphas", "betas", "masses"))
        alphas, betas, masses = (np.concatenate(pair, axis=0) for pair in pairs)
        return Samples(self.operator, alphas, betas, masses, self.leaders)


Assess = Callable[[Samples], tuple[Estimate, float]]
"""The estimate from samples, and its error from truncation."""

Influence = Callable[["Samples"], Function | None]
"""What one eigenvalue adds to the quantity; None where leading ones cannot be taken out."""


@dataclass(frozen=True)
class Budget:
    """Keywords that say how much to spend; ``plan`` has those of all estimators."""

    plan: Plan
    steps: int | None = None
    weighted: bool = False
    """Start from images of probes instead of probes: weights are then multiplied by eigenvalues."""

    def __post_init__(self) -> None:
        if self.steps is None:
            return
        if isinstance(self.steps, bool) or not isinstance(self.steps, int):
            raise InvalidTypeError(f"steps= takes a positive integer, not {self.steps!r}")
        if self.steps < 2:
            raise InvalidValueError(f"steps= takes an integer from 2 on, not {self.steps}")

    def cost(self, operator: Operator, steps: int) -> int:
        """AD passes a probe."""
        return steps * operator.step_passes() + self.first(operator)

    def first(self, operator: Operator) -> int:
        """AD passes a probe before its first step."""
        return operator.step_passes() - operator.push_passes() if self.weighted else 0


def draw(operator: Operator, budget: Budget, start: int, stop: int, known: Leaders | None) -> LockStep:
    """Runs from probes start … stop-1, before their first step."""
    if budget.weighted:
        rows = operator.images_of_signs(budget.plan.seed, start, stop)
    else:
        rows = operator.signs(operator.left, budget.plan.seed, start, stop)
    return (
        LockStep(operator, rows) if known is None else LockStep(operator, known.without(operator, rows), known.largest)
    )


def samples_of(
    operator: Operator, budget: Budget, start: int, stop: int, steps: int, known: Leaders | None = None
) -> Samples:
    """Probes start … stop-1 with a number of steps, as many at once as fit in the memory budget."""
    most, found = at_once(operator, steps), None
    for first in range(start, stop, most):
        runs = draw(operator, budget, first, min(first + most, stop), known)
        for _ in range(steps):
            runs.advance()
        more = _so_far(operator, runs, known)
        found = more if found is None else found.and_more(more)
    assert found is not None
    return found


def at_once(operator: Operator, steps: int) -> int:
    """Probes whose bases fit in the memory budget."""
    each = (steps + 4) * operator.row_bytes(operator.left) + 4 * operator.row_bytes(operator.right)
    if 2 * each > operator.problem.memory:
        raise InvalidValueError(
            f"memory={operator.problem.memory} bytes do not hold two probes with the bases of their {steps} steps; "
            f"give memory={2 * each} or more, or fewer steps="
        )
    return int(operator.problem.memory // each)


def fixed(operator: Operator, budget: Budget) -> Samples:
    """What ``passes=`` pay for."""
    passes = budget.plan.passes
    assert passes is not None
    steps = budget.steps or max(FEWEST_STEPS, min(STEPS, passes // (8 * operator.step_passes())))
    steps = min(steps, operator.space(operator.left))
    count = passes // budget.cost(operator, steps)
    if count < 2:
        raise InvalidValueError(
            f"passes={passes} is too few: two probes of {steps} steps, for a value with an error bar, take "
            f"{2 * budget.cost(operator, steps)}"
        )
    return samples_of(operator, budget, 0, count, steps)


def to_tolerance(
    operator: Operator, budget: Budget, assess: Assess, exact: float, influence: Influence
) -> tuple[Samples | None, bool]:
    """Samples until ``rtol=`` is met or ``max_passes=`` are spent; None where all of J (`exact` passes) costs less.

    Also whether an interrupt cut it short. If the first batch says that leading eigenvectors make most of the variance,
    they are found and taken out of the probes, and it starts anew.
    """
    plan, report = budget.plan, progress_of(budget.plan.progress)
    runs = _first(operator, budget, None)
    found = _stepped(operator, budget, assess, runs, None, SPREAD)
    count, cost = _to_take_out(operator, budget, assess, found, influence)
    left = plan.max_passes - operator.problem.passes
    if exact <= min(left, cost):
        return None, False
    known = None
    if count:
        residual = min(RESIDUAL, math.sqrt(SHARE * plan.rtol))
        known = leaders(operator, count, residual, int(min(left // 2, exact)), plan.seed)
    if known is not None:
        runs = _first(operator, budget, known)
    found = _stepped(operator, budget, assess, runs, known, 0.0)
    while True:
        excess = _excess(assess(found)[0], plan.rtol)
        each, have = budget.cost(operator, found.steps), found.count
        need = math.ceil(1.05 * have * excess**2) - have if excess > 1 else 0
        left = plan.max_passes - operator.problem.passes
        if need and exact <= min(left, need * each):
            return None, False
        more = min(need, have, left // each)
        expected = operator.problem.passes + need * each
        report(operator.problem.passes, min(plan.max_passes, expected) if more > 0 else operator.problem.passes)
        if more < 1:
            return found, False
        try:
            found = found.and_more(samples_of(operator, budget, have, have + more, found.steps, known))
        except KeyboardInterrupt:
            return found, True


def _excess(estimate: Estimate, rtol: float) -> float:
    """How many times too wide the interval is."""
    return min(estimate.half_width / max(rtol * abs(float(estimate)), 1e-300), 1e9)


def _to_take_out(
    operator: Operator, budget: Budget, assess: Assess, found: Samples, influence: Influence
) -> tuple[int, float]:
    """How many leading vectors save passes, and about how many passes are then to come."""
    excess, change = _excess(assess(found)[0], budget.plan.rtol), influence(found)
    if excess <= 1:
        return 0, 0.0
    probes, each = found.count * excess**2, budget.cost(operator, found.steps)
    if change is None:
        return 0, probes * each
    return worthwhile(operator, found.gauss(), budget.weighted, change, probes, each)


def _first(operator: Operator, budget: Budget, known: Leaders | None) -> LockStep:
    """The first batch of runs, with as many steps as an estimate takes at the least."""
    most = _most(operator, budget)
    few, left = min(most, budget.steps or FEWEST_STEPS), budget.plan.max_passes - operator.problem.passes
    count = min(FIRST, at_once(operator, most), left // budget.cost(operator, few))
    if count < 2:
        raise InvalidValueError(
            f"max_passes={budget.plan.max_passes} is too few: two probes of {few} steps, for a value with an error "
            f"bar, take {2 * budget.cost(operator, few)}"
        )
    runs = draw(operator, budget, 0, count, known)
    for _ in range(few):
        runs.advance()
    return runs


def _stepped(
    operator: Operator, budget: Budget, assess: Assess, runs: LockStep, known: Leaders | None, spread: float
) -> Samples:
    """Samples after the steps that the tolerance asks for, or that half of the passes left pay for.

    With `spread`, fewer: until truncation is that share of the error from the spread over probes.
    """
    plan, count = budget.plan, len(runs.masses)
    limit = (plan.max_passes + operator.problem.passes) // 2
    found = _so_far(operator, runs, known)
    while budget.steps is None and runs.steps < _most(operator, budget):
        estimate, truncation = assess(found)
        enough = max(SHARE * plan.rtol * abs(float(estimate)), spread * number(estimate.std_error))
        if truncation <= enough or operator.problem.passes + count * operator.step_passes() > limit:
            break
        runs.advance()
        found = _so_far(operator, runs, known)
    return found


def _most(operator: Operator, budget: Budget) -> int:
    return min(budget.steps or MOST_STEPS, operator.space(operator.left))


def _so_far(operator: Operator, runs: LockStep, known: Leaders | None) -> Samples:
    return Samples(operator, *runs.coefficients(), runs.masses, known)
