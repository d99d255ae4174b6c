"""How much to sample: a fixed cost, or probes until a tolerance is met; afresh, or from where a run has stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .estimate import Estimate
from .estimators import METHODS, Estimator, Key, Moment, Problem
from .linearization import InvalidTypeError, InvalidValueError, UnsupportedModeError, leading, number
from .probes import Probes
from .progress import progress_of

FORESIGHT = 4
"""How many times the present samples a predicted need is trusted for: from few probes it errs high by much."""

STRIDE = 0.75
"""The share of the way to a predicted need after which to look again at the latest, where that costs no pass."""

Assess = Callable[[Mapping[Key, Moment], str], list[Estimate]]
"""The estimates that moments give, for an estimator's name."""

Need = Callable[[Estimator, Any, int, float], int | None]
"""Predicts the samples that an estimator needs: from its state, the samples in it, and the factor by which the error
is to fall. None where it cannot tell."""


@dataclass(frozen=True)
class Plan:
    """The keywords that say how much to spend."""

    method: str = "auto"
    rtol: float = 0.05
    atol: float = 0.0
    max_passes: int = 2000
    passes: int | None = None
    seed: int = 0
    probes: Probes | None = None
    progress: Any = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidValueError(f"method= takes one of {', '.join(METHODS)}, not {self.method!r}")
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidTypeError(f"{name}= takes a number, not {value!r}")
            if not 0 <= value < math.inf:
                raise InvalidValueError(f"{name}= takes a number that is not negative, not {value}")
        if self.rtol == 0 and self.atol == 0:
            raise InvalidValueError("rtol= takes a positive number, not 0, unless atol= is positive")
        for name, count in (("max_passes", self.max_passes), ("passes", self.passes)):
            if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
                raise InvalidTypeError(f"{name}= takes a positive integer, not {count!r}")
            if count is not None and count < 1:
                raise InvalidValueError(f"{name}= takes a positive integer, not {count}")
        if self.probes is not None and not isinstance(self.probes, Probes):
            raise InvalidTypeError(f"probes= takes what draw_probes returns, not {type(self.probes).__name__}")


@dataclass(frozen=True, repr=False)
class Run:
    """Where a run has stopped: everything that was spent, ready to go on. What ``state=`` takes."""

    estimator: Estimator
    state: Any
    samples: int
    seed: int
    problem: Problem
    spent: tuple[tuple[int, int], ...]
    """JVPs and VJPs so far, for each kernel."""
    lost: int = 0
    """Passes of pilots among them that the samples have nothing of."""

    @staticmethod
    def of(problem: Problem, estimator: Estimator, state: Any, samples: int, seed: int, lost: int = 0) -> Run:
        """With what `problem` has spent."""
        spent = tuple((kernel.n_jvp, kernel.n_vjp) for kernel in problem.kernels)
        return Run(estimator, state, samples, seed, problem, spent, lost)

    def __repr__(self) -> str:
        return f"Run({self.estimator.name}, {self.samples} samples, seed={self.seed})"

    def carry_on(self, problem: Problem, plan: Plan) -> None:
        """Make `problem` one that has spent what this run has; refuse if it is another one.

        Raises
        ------
        InvalidValueError
        """
        mine = self.problem
        reasons = {
            "another linearization": len(mine.kernels) != len(problem.kernels)
            or any(a.J is not b.J for a, b in zip(mine.kernels, problem.kernels, strict=False)),
            "other quantities": mine.needs != problem.needs,
            "another by=": mine.groups != problem.groups,
            "another centered=": mine.centre != problem.centre,
            "other targets": not _same(problem.xp, mine.target, problem.target),
            f"method={self.estimator.name!r}": plan.method not in ("auto", self.estimator.name),
            f"seed={self.seed}": plan.seed != self.seed,
            "seeded probes, not probes=": plan.probes is not None,
        }
        for reason, differs in reasons.items():
            if differs:
                raise InvalidValueError(f"state= holds a run with {reason}; give what it was made with, or start anew")
        for kernel, (n_jvp, n_vjp) in zip(problem.kernels, self.spent, strict=True):
            kernel.n_jvp, kernel.n_vjp = n_jvp, n_vjp


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    moments: Mapping[Key, Moment]
    method: str
    why: str = ""
    interrupted: bool = False
    run: Run | None = None
    """None where there is no way on: after exact passes, with probes that were handed in, or chosen by a pilot."""


def fixed(problem: Problem, plan: Plan, estimator: Estimator, why: str = "", run: Run | None = None) -> Outcome:
    """One batch of probes: nothing depends on the values, so this runs under jit, grad and vmap."""
    check_modes(problem, estimator)
    if plan.probes is not None:
        _check_probes(problem, estimator, plan, plan.probes)
        state = estimator.extend(problem, None, plan.probes)
        return Outcome(estimator.moments(problem, state), estimator.name, _remarked(problem, estimator, state, why))
    assert plan.passes is not None
    have, lost = (0, 0) if run is None else (run.samples, run.lost)
    samples = max(have, estimator.samples(problem, plan.passes - lost))
    _check_enough(problem, estimator, samples, "passes", plan.passes)
    if run is None or samples > have:
        probes = estimator.draw(problem, plan.seed, have, samples)
        state = estimator.extend(problem, None if run is None else run.state, probes)
        run = Run.of(problem, estimator, state, samples, plan.seed, lost)
    why = _remarked(problem, estimator, run.state, why)
    return Outcome(estimator.moments(problem, run.state), estimator.name, why, run=run)


def to_tolerance(
    problem: Problem,
    plan: Plan,
    assess: Assess,
    estimator: Estimator,
    why: str = "",
    run: Run | None = None,
    exact: Callable[[str], Outcome] | None = None,
    exact_passes: float = math.inf,
    need_of: Need | None = None,
) -> Outcome:
    """Batches that grow to the predicted need, at most doubling; `exact` takes over where that is cheaper."""
    check_modes(problem, estimator)
    report = progress_of(plan.progress)
    state, have, lost = (None, 0, problem.passes) if run is None else (run.state, run.samples, run.lost)
    first = _first_samples(problem, estimator, plan, have)
    need, want = first, first
    interrupted = False
    moments: Mapping[Key, Moment] = {}
    while True:
        if want > have:
            foreseen = min(need, FORESIGHT * have) if have else want
            cheaper = exact_passes <= estimator.growth(problem, have, foreseen)
            try:
                if exact is not None and cheaper and problem.passes + exact_passes <= plan.max_passes:
                    return exact(f"exact: its {exact_passes} passes cost less than the {need} samples that rtol needs")
                state = estimator.extend(problem, state, estimator.draw(problem, plan.seed, have, want))
            except KeyboardInterrupt:
                if state is None:
                    raise
                moments = moments or estimator.moments(problem, state)
                interrupted = True
                break
            have = want
        moments = estimator.moments(problem, state)
        excess = max(excess_of(plan, e) for e in assess(moments, estimator.name))
        need = have if excess <= 1 else _need(estimator, state, have, excess, need_of)
        want = (
            affordable(problem, estimator, plan, have, next_look(problem, estimator, have, need))
            if need > have
            else have
        )
        expected = problem.passes + estimator.growth(problem, have, need if want > have else have)
        report(problem.passes, min(plan.max_passes, expected) if want > have else problem.passes)
        if want <= have:
            break
    why = _remarked(problem, estimator, state, why)
    run = Run.of(problem, estimator, state, have, plan.seed, lost)
    return Outcome(moments, estimator.name, why, interrupted, run)


def _remarked(problem: Problem, estimator: Estimator, state: Any, why: str) -> str:
    """`why`, and what the estimator itself has to say about the result, if anything."""
    remark = getattr(estimator, "remark", None)
    return "; ".join(text for text in (why, remark(problem, state) if remark else "") if text)


def _same(xp: Any, left: Any, right: Any) -> bool:
    """Whether two arrays, or two absences, are alike."""
    if left is None or right is None:
        return left is right
    return left.shape == right.shape and number(xp.max(xp.abs(left - right))) == 0


def excess_of(plan: Plan, estimate: Estimate) -> float:
    """Half-width over what is tolerated."""
    return estimate.half_width / max(plan.rtol * abs(float(estimate)), plan.atol, 1e-300)


def _need(estimator: Estimator, state: Any, have: int, excess: float, need_of: Need | None) -> int:
    """Samples that will do: as predicted, or by the law of large numbers."""
    predicted = None if need_of is None else need_of(estimator, state, have, excess)
    if predicted is not None:
        return max(predicted, have + 1)
    return by_large_numbers(have, excess)


def by_large_numbers(have: int, excess: float) -> int:
    """The samples at which an error that falls as their inverse root is down by the factor `excess`."""
    return math.ceil(1.05 * have * min(excess, 1e6) ** 2)


def next_look(problem: Problem, estimator: Estimator, have: int, need: int) -> int:
    """Where to look next on the way to `need`: at most at twice the samples, and short of it where looks are free.

    Predictions err high as often as low, and what was spent beyond the need cannot be had back. Batches are powers of
    two, few sizes for compilers to know.
    """
    want = min(need, 2 * have)
    if want - have <= max(2, have // 16):
        return want
    short = have + 2 ** int(math.log2(STRIDE * (want - have)))
    detour = estimator.growth(problem, have, short) + estimator.growth(problem, short, want)
    return short if detour <= estimator.growth(problem, have, want) else want


def _first_samples(problem: Problem, estimator: Estimator, plan: Plan, have: int) -> int:
    if have:  # whoever handed that over has looked at it
        return have
    want = affordable(problem, estimator, plan, have, estimator.first)
    _check_enough(problem, estimator, want, "max_passes", plan.max_passes)
    return want


def affordable(problem: Problem, estimator: Estimator, plan: Plan, have: int, want: int) -> int:
    """As many samples up to `want` as the rest of max_passes pays for, and `have` if it pays for no more."""
    left = plan.max_passes - problem.passes

    def cost(samples: int) -> int:
        return estimator.growth(problem, have, samples) if have else estimator.passes(problem, samples)

    low, high = have, max(have, min(want, estimator.samples(problem, 2**40)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= left else (low, middle - 1)
    return low


def check_modes(problem: Problem, estimator: Estimator) -> None:
    """Refuse an estimator that the linearizations have no modes for, or that has no parts where parts are wanted."""
    if problem.groups.names and not estimator.parts:
        raise InvalidValueError(
            f"method={estimator.name!r} has no parts for by=; use method='reverse', 'forward', 'hutch++' or 'exact'"
        )
    for kernel in problem.kernels:
        missing = estimator.modes - kernel.J.modes
        if missing:
            raise UnsupportedModeError(
                f"method={estimator.name!r} needs {' and '.join(sorted(estimator.modes))}, but this model "
                f"has no {' and no '.join(sorted(missing))}; use method='reverse' or 'forward'"
            )


def _check_enough(problem: Problem, estimator: Estimator, samples: int, keyword: str, given: int) -> None:
    most = estimator.samples(problem, 2**40)
    if most < estimator.fewest:
        raise InvalidValueError(
            f"method={estimator.name!r} takes {estimator.fewest} samples for a value and its error bar, but no more "
            f"than {most} are to be had, by the rank of the kernel or in memory={problem.memory}; use method='exact' "
            "or 'reverse'"
        )
    if samples < estimator.fewest:
        least = estimator.passes(problem, estimator.fewest)
        raise InvalidValueError(
            f"{keyword}={given} is too few for method={estimator.name!r}: a value and its error bar take {least}"
        )


def _check_probes(problem: Problem, estimator: Estimator, plan: Plan, probes: Probes) -> None:
    """Refuse probes that were drawn for another method or model, too few, or beside passes=."""
    if plan.passes is not None:
        raise InvalidValueError("give passes= or probes=, not both: the probes fix the cost")
    wanted = estimator.draw(problem, 0, 0, 0)
    for name, have, want in zip(Probes._fields, probes, wanted, strict=True):
        if want is not None and have is None:
            raise InvalidValueError(
                f"probes= has no {name}, which method={estimator.name!r} needs; draw them with "
                f"draw_probes(J, n, method={estimator.name!r})"
            )
        if want is not None and _widths(have) != _widths(want):
            raise InvalidValueError(
                f"probes= were drawn for another model: {name} of {_widths(have)} bytes a probe, not {_widths(want)}"
            )
    count = leading(probes.tangents if probes.cotangents is None else probes.cotangents)
    if count < estimator.fewest:
        raise InvalidValueError(f"probes= holds {count} probes; a value with an error bar takes {estimator.fewest}")


def _widths(tree: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(_widths(part) for part in tree)
    return tree.shape[1]
