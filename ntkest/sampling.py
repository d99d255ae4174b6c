"""How much to sample: a fixed cost, or probes until a tolerance is met; and the choice of estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .estimate import Estimate
from .estimators import BY_EXAMPLE, ESTIMATORS, EXACT, FORWARD, METHODS, REVERSE, Estimator, Key, Moment, Problem
from .linearization import (
    InvalidTypeError,
    InvalidValueError,
    TracedValueError,
    UnsupportedModeError,
    leading,
    number,
)
from .probes import Probes

FIRST = 16
"""Samples before the first look at the tolerance: fewer make jackknife error bars unreliable."""

PILOT = 8
"""Samples of each one-sided mode that "auto" compares."""

FORESIGHT = 4
"""How many times the present samples a predicted need is trusted for: from few probes it errs high by much."""

FEW_EXAMPLES = 64
"""The most examples for which "auto" takes norms and products example by example."""

CLEARLY = 2.0
"""The factor in error by which a pilot must beat the side with the smaller dimension."""

Assess = Callable[[Mapping[Key, Moment], str], list[Estimate]]
"""The estimates that moments give, for an estimator's name."""


@dataclass(frozen=True)
class Plan:
    """The keywords that say how much to spend."""

    method: str = "auto"
    rtol: float = 0.05
    max_passes: int = 2000
    passes: int | None = None
    seed: int = 0
    probes: Probes | None = None
    progress: Any = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidValueError(f"method= takes one of {', '.join(METHODS)}, not {self.method!r}")
        if isinstance(self.rtol, bool) or not isinstance(self.rtol, int | float):
            raise InvalidTypeError(f"rtol= takes a positive number, not {self.rtol!r}")
        if not 0 < self.rtol < math.inf:
            raise InvalidValueError(f"rtol= takes a positive number, not {self.rtol}")
        for name, value in (("max_passes", self.max_passes), ("passes", self.passes)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise InvalidTypeError(f"{name}= takes a positive integer, not {value!r}")
            if value is not None and value < 1:
                raise InvalidValueError(f"{name}= takes a positive integer, not {value}")
        if self.probes is not None and not isinstance(self.probes, Probes):
            raise InvalidTypeError(f"probes= takes what draw_probes returns, not {type(self.probes).__name__}")


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    moments: Mapping[Key, Moment]
    method: str
    why: str = ""
    interrupted: bool = False


def sample(problem: Problem, plan: Plan, assess: Assess) -> Outcome:
    """Spend what the plan allows."""
    if plan.method == "exact":
        return _exact(problem)
    if plan.probes is not None or plan.passes is not None:
        return _fixed(problem, plan)
    try:
        return _to_tolerance(problem, plan, assess)
    except TracedValueError as error:
        raise TracedValueError(
            "rtol= decides from values how far to go, which cannot be traced; inside jit, grad or vmap give passes= "
            "or probes= for a fixed cost"
        ) from error


def _exact(problem: Problem, why: str = "") -> Outcome:
    return Outcome(EXACT.run(problem), EXACT.name, why)


def _exactly(problem: Problem) -> tuple[int, Callable[[str], Outcome]]:
    """The passes of the cheapest way to exact moments, and that way, which takes why it was chosen."""
    passes = EXACT.passes(problem)
    units = BY_EXAMPLE.all_units(problem) if BY_EXAMPLE.offered(problem) else None
    if units is None or BY_EXAMPLE.passes(problem, units) >= passes:
        return passes, lambda why: _exact(problem, f"exact: {why}")

    def by_example(why: str) -> Outcome:
        state = BY_EXAMPLE.extend(problem, None, BY_EXAMPLE.draw(problem, 0, 0, units))
        return Outcome(BY_EXAMPLE.moments(problem, state), BY_EXAMPLE.name, f"{BY_EXAMPLE.remark(problem, state)}; {why}")

    return BY_EXAMPLE.passes(problem, units), by_example


def _fixed(problem: Problem, plan: Plan) -> Outcome:
    """One batch of probes: nothing depends on the values, so this runs under jit, grad and vmap."""
    if plan.method == "auto":
        if plan.probes is None and plan.passes is not None:
            exact, run = _exactly(problem)
            if exact <= plan.passes:
                return run(f"its {exact} passes fit in passes={plan.passes}")
        estimator, why = _prior(problem, plan.probes)
    else:
        estimator, why = ESTIMATORS[plan.method], ""
    _check_modes(problem, estimator)
    probes = plan.probes
    if probes is None:
        assert plan.passes is not None
        samples = estimator.samples(problem, plan.passes)
        _check_enough(problem, estimator, samples, "passes", plan.passes)
        probes = estimator.draw(problem, plan.seed, 0, samples)
    else:
        _check_probes(problem, estimator, plan, probes)
    state = estimator.extend(problem, None, probes)
    return Outcome(estimator.moments(problem, state), estimator.name, _remarked(problem, estimator, state, why))


def _remarked(problem: Problem, estimator: Estimator, state: Any, why: str) -> str:
    """`why`, and what the estimator itself has to say, if anything."""
    remark = getattr(estimator, "remark", None)
    return "; ".join(text for text in (why, remark(problem, state) if remark else "") if text)


def _to_tolerance(problem: Problem, plan: Plan, assess: Assess) -> Outcome:
    """Batches that grow to the predicted need, at most doubling."""
    report = _progress(plan.progress)
    exact: float = math.inf
    if plan.method == "auto":
        exact, run = _exactly(problem)
        estimator, why = _prior(problem, None)
        if exact <= min(plan.max_passes, estimator.passes(problem, FIRST)):
            return run(f"{exact} passes cost no more than a first sample")
        estimator, why, state, have = _pilot(problem, plan, assess, estimator, why)
    else:
        estimator, why, state, have = ESTIMATORS[plan.method], "", None, 0
        _check_modes(problem, estimator)
    need = want = _first_samples(problem, estimator, plan, have)
    interrupted = False
    moments = estimator.moments(problem, state) if state is not None else {}
    while want > have:
        try:
            foreseen = min(need, FORESIGHT * have) if have else want
            if exact <= estimator.growth(problem, have, foreseen) and problem.passes + exact <= plan.max_passes:
                return run(f"its {exact} passes cost less than the {need} samples that rtol needs")
            state = estimator.extend(problem, state, estimator.draw(problem, plan.seed, have, want))
        except KeyboardInterrupt:
            if state is None:
                raise
            interrupted = True
            break
        have = want
        moments = estimator.moments(problem, state)
        excess = max(e.half_width / max(plan.rtol * abs(float(e)), 1e-300) for e in assess(moments, estimator.name))
        done = excess <= 1 or all(moment.replicates is None for moment in moments.values())
        need = have if done else math.ceil(1.05 * have * min(excess, 1e6) ** 2)
        want = _affordable(problem, estimator, plan, have, min(need, 2 * have)) if need > have else have
        expected = problem.passes + estimator.growth(problem, have, need if want > have else have)
        report(problem.passes, min(plan.max_passes, expected) if want > have else problem.passes)
    return Outcome(moments, estimator.name, _remarked(problem, estimator, state, why), interrupted)


def _pilot(
    problem: Problem, plan: Plan, assess: Assess, favourite: Estimator, why: str
) -> tuple[Estimator, str, Any, int]:
    """Compare both one-sided modes on a few probes; the winner's probes stay in its run."""
    if favourite is BY_EXAMPLE or not (problem.has("vjp") and problem.has("jvp")):
        return favourite, why, None, 0
    pilots = {}
    for estimator in (REVERSE, FORWARD):
        cost = estimator.passes(problem, PILOT)
        if problem.passes + cost > plan.max_passes // 4:
            return favourite, why, None, 0
        state = estimator.extend(problem, None, estimator.draw(problem, plan.seed, 0, PILOT))
        found = assess(estimator.moments(problem, state), estimator.name)
        error = max(number(e.std_error) / max(abs(number(e.value)), 1e-300) for e in found)
        pilots[estimator.name] = (error * math.sqrt(cost), state)
    other = FORWARD if favourite is REVERSE else REVERSE
    ratio = pilots[favourite.name][0] / max(pilots[other.name][0], 1e-300)
    winner = other if ratio > CLEARLY else favourite
    why = f"{winner.name}: in a pilot of {PILOT} probes a mode, {favourite.name}/{other.name} errors were {ratio:.2g}"
    return winner, why, pilots[winner.name][1], PILOT


def _prior(problem: Problem, probes: Probes | None) -> tuple[Estimator, str]:
    """Reverse by example where there is nothing against it; else the one-sided mode on the smaller side.

    That is the one whose probes have the smaller variance where the diagonal is even.
    """
    if probes is not None and probes.cotangents is None and probes.tangents is not None:
        return FORWARD, "forward: the probes given are tangents"
    if probes is not None:
        return REVERSE, "reverse: the probes given are cotangents"
    parameters = min(problem.parameters(a) for a in range(len(problem.kernels)))
    if _by_example_pays(problem):
        return BY_EXAMPLE, f"{BY_EXAMPLE.name}: its samples have no noise between examples"
    if not problem.has("jvp"):
        return REVERSE, "reverse: there is no JVP"
    if not problem.has("vjp"):
        return FORWARD, "forward: there is no VJP"
    if problem.size <= parameters:
        return REVERSE, f"reverse: {problem.size} outputs are no more than {parameters} parameters"
    return FORWARD, f"forward: {parameters} parameters are fewer than {problem.size} outputs"


def _by_example_pays(problem: Problem) -> bool:
    """Whether gradients of single examples are there and worth their price.

    For traces always: a pass costs 0.3 to 2 of an ordinary one where dense layers or convolutions hold most parameters
    and up to 20 where examples go one by one (a torch GRU), for a variance that is smaller about N-fold.
    For norms and products the Gram matrix of all examples' gradients comes on top.
    """
    if not BY_EXAMPLE.offered(problem):
        return False
    if BY_EXAMPLE.all_units(problem) is not None:
        return True
    examples = problem.kernels[0].J.examples
    return examples is not None and examples[1] <= FEW_EXAMPLES


def _first_samples(problem: Problem, estimator: Estimator, plan: Plan, have: int) -> int:
    if have >= FIRST:
        return have
    want = _affordable(problem, estimator, plan, have, FIRST)
    _check_enough(problem, estimator, want, "max_passes", plan.max_passes)
    return want


def _affordable(problem: Problem, estimator: Estimator, plan: Plan, have: int, want: int) -> int:
    """As many samples up to `want` as the rest of max_passes pays for, and `have` if it pays for no more."""
    left = plan.max_passes - problem.passes

    def cost(samples: int) -> int:
        return estimator.growth(problem, have, samples) if have else estimator.passes(problem, samples)

    low, high = have, want
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= left else (low, middle - 1)
    return low


def _check_modes(problem: Problem, estimator: Estimator) -> None:
    for kernel in problem.kernels:
        missing = estimator.modes - kernel.J.modes
        if missing:
            raise UnsupportedModeError(
                f"method={estimator.name!r} needs {' and '.join(sorted(estimator.modes))}, but this model "
                f"has no {' and no '.join(sorted(missing))}; use method='reverse' or 'forward'"
            )


def _check_enough(problem: Problem, estimator: Estimator, samples: int, keyword: str, given: int) -> None:
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


def _progress(progress: Any) -> Callable[[int, int], None]:
    """``progress=``: False, True for a line on stderr, or a function of (passes spent, passes expected)."""
    if progress is False or progress is None:
        return lambda spent, expected: None
    if callable(progress):
        return lambda spent, expected: progress(spent, expected)
    if progress is not True:
        raise InvalidTypeError(f"progress= takes True, False or a function of (spent, expected), not {progress!r}")

    import sys

    def line(spent: int, expected: int) -> None:
        end = "\n" if spent >= expected else ""
        sys.stderr.write(f"\rntkest: {spent} of about {expected} passes{end}")
        sys.stderr.flush()

    return line
