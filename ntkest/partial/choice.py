"""Which estimator, and how many samples: a fixed cost, or until a tolerance is met."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..linearization import InvalidValueError, TracedValueError, UnsupportedModeError, numbers
from ..progress import progress_of
from ..sampling import Plan
from .exact import exact_passes, run_exact
from .nystrom import NYSTROM
from .onesided import FORWARD, REVERSE
from .result import PartialTraces
from .task import FEWEST, Gathered, Sampler, Task
from .twosided import TWO_SIDED

SAMPLERS: dict[str, Sampler] = {s.name: s for s in (FORWARD, REVERSE, TWO_SIDED, NYSTROM)}
"""Estimators that sample, by the name that ``method=`` takes."""

METHODS = ("auto", "exact", *SAMPLERS)
"""All values of ``method=``."""

PILOT = 8
"""Samples of Nyström++ in the comparison of "auto"; other estimators get as many as cost no more."""

GROWING = 0.8
"""Nyström++ is chosen from this times its error on: it has more to gain from further passes than others."""

PATIENCE = 10
"""Nyström++ gets another chance where that costs this part of what the run seems to need without it."""

Assess = Callable[[Gathered, str, str], PartialTraces]
"""The result of what was gathered, by a method, for a reason."""


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    gathered: Gathered
    method: str
    why: str = ""
    interrupted: bool = False


def run(task: Task, method: str, plan: Plan, assess: Assess) -> Outcome:
    """Spend what the plan allows."""
    if method == "exact":
        return Outcome(run_exact(task), "exact")
    if method == "reverse" and task.layout.block == 1 and "vjp" in task.kernel.J.modes:
        return _rows(task, plan)
    if plan.passes is not None:
        return _fixed(task, method, plan)
    try:
        return _to_tolerance(task, method, plan, assess)
    except TracedValueError as error:
        raise TracedValueError(
            "rtol= decides from values how far to go, which cannot be traced; inside jit, grad or vmap give passes= "
            "for a fixed cost"
        ) from error


def _rows(task: Task, plan: Plan) -> Outcome:
    """In reverse mode a block of one output has no sampling error."""
    cost = exact_passes(task, "vjp")
    for keyword, given in (("passes", plan.passes), ("max_passes", plan.max_passes)):
        if given is not None and cost > given:
            raise InvalidValueError(
                f"{keyword}={given} is too few for method='reverse': a VJP for each of the {cost} outputs is needed; "
                "give more, or use method='forward' or 'nystrom++'"
            )
    return Outcome(run_exact(task, "vjp"), "reverse", "reverse: blocks of one output are exact")


def _fixed(task: Task, method: str, plan: Plan) -> Outcome:
    """One batch of probes: nothing depends on the values, so this runs under jit, grad and vmap."""
    assert plan.passes is not None
    why = ""
    if method == "auto":
        cost = exact_passes(task)
        if cost <= plan.passes:
            return Outcome(run_exact(task), "exact", f"exact: its {cost} passes fit in passes={plan.passes}")
        sampler, why = _prior(task, plan.passes)
    else:
        sampler = SAMPLERS[method]
    _check_modes(task, sampler)
    samples = _affordable(task, sampler, plan.passes, plan.passes)
    _check_enough(task, sampler, samples, "passes", plan.passes)
    state = sampler.extend(task, None, 0, samples)
    return Outcome(sampler.gathered(task, state), sampler.name, why)


def _prior(task: Task, passes: int) -> tuple[Sampler, str]:
    """Without looking at values: Nyström++, whose loss on flat spectra is small beside its gain on others."""
    if "jvp" not in task.kernel.J.modes:
        return REVERSE, "reverse: there is no JVP"
    if "vjp" not in task.kernel.J.modes:
        return FORWARD, "forward: there is no VJP"
    if passes >= NYSTROM.passes(task, PILOT):
        return NYSTROM, "nystrom++: spectra of networks decay"
    return FORWARD, f"forward: passes={passes} are too few for a subspace"


def _to_tolerance(task: Task, method: str, plan: Plan, assess: Assess) -> Outcome:
    """Batches that grow to the predicted need, at most doubling."""
    report = progress_of(plan.progress)
    problem, exact = task.problem, math.inf
    if method == "auto":
        exact = exact_passes(task)
        if exact <= min(plan.max_passes, FORWARD.first):
            return Outcome(run_exact(task), "exact", f"exact: {exact} passes cost no more than a first sample")
        sampler, why, state, have = _pilot(task, plan, assess)
    else:
        sampler, why, state, have = SAMPLERS[method], "", None, 0
        _check_modes(task, sampler)
    want = max(have, _first(task, sampler, plan, have))
    looks: list[tuple[int, float]] = []
    while True:
        if want > have:
            try:
                state = sampler.extend(task, state, have, want)
            except KeyboardInterrupt:
                if state is None:
                    raise
                return Outcome(sampler.gathered(task, state), sampler.name, why, interrupted=True)
            have = want
        gathered = sampler.gathered(task, state)
        excess = assess(gathered, sampler.name, why).excess
        if excess > 1:
            looks.append((have, excess))
            need, left = _need(sampler, looks), plan.max_passes - problem.passes
            if exact <= min(left, sampler.growth(task, have, need)):
                why = f"exact: its {exact} passes cost less than the {need} samples of {sampler.name} that rtol needs"
                return Outcome(run_exact(task), "exact", why)
            want = max(have, _affordable(task, sampler, left, min(need, 2 * have), have))
        if want == have:
            report(problem.passes, problem.passes)
            return Outcome(gathered, sampler.name, why)
        report(problem.passes, min(plan.max_passes, problem.passes + sampler.growth(task, have, need)))


@dataclass(frozen=True)
class Tried:
    """A sampler after a pilot."""

    sampler: Sampler
    state: Any
    samples: int
    error: float
    """‖standard errors‖/‖values‖."""
    need: int
    """Samples that rtol seems to need."""


def _try(task: Task, assess: Assess, sampler: Sampler, state: Any, have: int, want: int) -> Tried:
    state = sampler.extend(task, state, have, want)
    found = assess(sampler.gathered(task, state), sampler.name, "")
    size = max(float(np.linalg.norm(numbers(found.value))), 1e-300)
    error = float(np.linalg.norm(numbers(found.std_error))) / size
    return Tried(sampler, state, want, error, _need(sampler, [(want, found.excess)]))


def _pilot(task: Task, plan: Plan, assess: Assess) -> tuple[Sampler, str, Any, int]:
    """Compare estimators on as many passes each; the winner's samples stay in its run.

    Where Nyström++ comes second, it is given more while that is cheap beside what rtol needs otherwise: a subspace that
    is still too small shows nothing of what it will gain.
    """
    budget, exact = NYSTROM.passes(task, PILOT), exact_passes(task)
    if not task.kernel.J.modes >= {"vjp", "jvp"} or 3 * budget > plan.max_passes // 4:
        return *_prior(task, plan.max_passes), None, 0
    if 3 * budget > exact // 4:
        return FORWARD, f"forward: the {exact} passes of exact are too few for a comparison", None, 0
    forward = _try(task, assess, FORWARD, None, 0, _affordable(task, FORWARD, budget, budget))
    if FORWARD.growth(task, forward.samples, forward.need) <= 2 * budget:
        why = "forward: few passes are needed, no more than a comparison would cost"
        return FORWARD, why, forward.state, forward.samples
    two = _try(task, assess, TWO_SIDED, None, 0, _affordable(task, TWO_SIDED, budget, budget))
    subspace = _try(task, assess, NYSTROM, None, 0, PILOT)
    plain = min((forward, two), key=lambda tried: tried.error)
    ahead = min(exact, plain.sampler.growth(task, plain.samples, plain.need))
    errors = ", ".join(f"{t.sampler.name} {t.error:.2g}" for t in (forward, two, subspace))
    why = f"relative errors in a pilot of {budget} passes each were {errors}"
    while True:
        spent, have = NYSTROM.passes(task, subspace.samples), subspace.samples
        if GROWING * subspace.error <= plain.error * math.sqrt(budget / spent):
            return NYSTROM, f"nystrom++: {why}", subspace.state, have
        if NYSTROM.growth(task, have, 2 * have) > ahead // PATIENCE:
            return plain.sampler, f"{plain.sampler.name}: {why}", plain.state, plain.samples
        subspace = _try(task, assess, NYSTROM, subspace.state, have, 2 * have)
        why = f"relative error {subspace.error:.2g} with {2 * have} columns; before, {why.removeprefix('before, ')}"


def _need(sampler: Sampler, looks: list[tuple[int, float]]) -> int:
    """Samples after which an error that is now so many times too large will do, from (samples, times) so far.

    Errors fall like one over the root of the samples, and faster where the sampler is not steady: at the rate seen
    between the last two looks, or in inverse proportion before there are two.
    """
    have, excess = looks[-1]
    if excess <= 1:
        return have
    rate = 0.5 if sampler.steady else 1.0
    if not sampler.steady and len(looks) > 1:
        before, larger = looks[-2]
        rate = min(4.0, max(0.5, math.log(larger / excess) / math.log(have / before)))
    return math.ceil(1.05 * have * math.pow(min(excess, 1e6), 1 / rate))


def _first(task: Task, sampler: Sampler, plan: Plan, have: int) -> int:
    want = _affordable(task, sampler, plan.max_passes - task.problem.passes, sampler.first, have)
    _check_enough(task, sampler, max(have, want), "max_passes", plan.max_passes)
    return want


def _affordable(task: Task, sampler: Sampler, budget: int, most: int, have: int = 0) -> int:
    """The largest number of samples, up to `most`, to which the budget pays for growing from `have`."""
    low, high = have, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sampler.growth(task, have, middle) <= budget else (low, middle - 1)
    return low


def _check_modes(task: Task, sampler: Sampler) -> None:
    missing = sampler.modes - task.kernel.J.modes
    if missing:
        raise UnsupportedModeError(
            f"method={sampler.name!r} needs {' and '.join(sorted(sampler.modes))}, but this model has no "
            f"{' and no '.join(sorted(missing))}; use method='reverse', 'forward' or 'exact'"
        )


def _check_enough(task: Task, sampler: Sampler, samples: int, keyword: str, given: int) -> None:
    if samples < FEWEST:
        least = sampler.passes(task, FEWEST)
        raise InvalidValueError(
            f"{keyword}={given} is too few for method={sampler.name!r}: values and error bars take {least}, with "
            f"{task.layout.count} blocks of {task.layout.block} outputs"
        )
