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
from ..linearization import InvalidTypeError, InvalidValueError
from ..sampling import Plan, reporter
from .quadrature import LockStep, Rule, gauss, radau, scaled
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
        return Samples(self.operator, *(np.concatenate(pair, axis=0) for pair in pairs))


Assess = Callable[[Samples], tuple[Estimate, float]]
"""The estimate from samples, and its error from truncation."""


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


def draw(operator: Operator, budget: Budget, start: int, stop: int) -> LockStep:
    """Runs from probes start … stop-1, before their first step."""
    if not budget.weighted:
        return LockStep(operator, operator.signs(operator.left, budget.plan.seed, start, stop))
    return LockStep(operator, operator.pull(operator.signs(operator.right, budget.plan.seed, start, stop)))


def samples_of(operator: Operator, budget: Budget, start: int, stop: int, steps: int) -> Samples:
    """Probes start … stop-1 with a number of steps, as many at once as fit in the memory budget."""
    most, found = at_once(operator, steps), None
    for first in range(start, stop, most):
        runs = draw(operator, budget, first, min(first + most, stop))
        for _ in range(steps):
            runs.advance()
        more = _so_far(operator, runs)
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


def to_tolerance(operator: Operator, budget: Budget, assess: Assess, exact: float) -> tuple[Samples | None, bool]:
    """Samples until ``rtol=`` is met or ``max_passes=`` are spent; None where all of J (`exact` passes) costs less."""
    plan, report = budget.plan, reporter(budget.plan.progress)
    found = _first(operator, budget, assess)
    while True:
        estimate, _ = assess(found)
        excess = estimate.half_width / max(plan.rtol * abs(float(estimate)), 1e-300)
        each, have = budget.cost(operator, found.steps), found.count
        if excess <= 1:
            report(operator.problem.passes, operator.problem.passes)
            return found, False
        need = math.ceil(1.05 * have * min(excess, 1e3) ** 2) - have
        left = plan.max_passes - operator.problem.passes
        if exact <= min(left, need * each):
            return None, False
        more = min(need, have, left // each)
        report(operator.problem.passes, min(plan.max_passes, operator.problem.passes + need * each))
        if more < 1:
            return found, False
        try:
            found = found.and_more(samples_of(operator, budget, have, have + more, found.steps))
        except KeyboardInterrupt:
            return found, True


def _first(operator: Operator, budget: Budget, assess: Assess) -> Samples:
    """The first batch, which finds out how many steps the function needs."""
    plan, most = budget.plan, min(budget.steps or MOST_STEPS, operator.space(operator.left))
    few = min(most, budget.steps or FEWEST_STEPS)
    count = min(FIRST, at_once(operator, most), plan.max_passes // budget.cost(operator, few))
    if count < 2:
        raise InvalidValueError(
            f"max_passes={plan.max_passes} is too few: two probes of {few} steps, for a value with an error bar, take "
            f"{2 * budget.cost(operator, few)}"
        )
    runs, limit = draw(operator, budget, 0, count), plan.max_passes // (1 if budget.steps else 2)
    while runs.steps < few or operator.problem.passes + count * operator.step_passes() <= limit:
        runs.advance()
        if runs.steps == most:
            break
        if budget.steps is None and runs.steps >= few:
            estimate, truncation = assess(_so_far(operator, runs))
            if truncation <= SHARE * plan.rtol * abs(float(estimate)):
                break
    return _so_far(operator, runs)


def _so_far(operator: Operator, runs: LockStep) -> Samples:
    return Samples(operator, *runs.coefficients(), runs.masses)
