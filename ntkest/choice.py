"""Which estimator: the one that was named, or, for "auto", the one that a pilot predicts to be the best.

A few samples of XNysTrace show the spectrum's head and the mass of its tail, from which the errors of all estimators
are forecast (`forecast`). Their passes are not lost to XNysTrace, which goes on from them; nor to XTrace where the
sketch is on the side of the outputs, for it takes them over at a pass or two a sample. At a fixed cost the choice
between these two then waits until as many samples are there as XTrace will have. To one-sided probes the pilot is lost.
Without a pilot (under tracing, without both modes, by layer, or on a small budget) it is the one-sided mode on the
smaller side. Exact passes are taken where they cost less.

A choice that looks at values makes the estimate depend on itself: "auto" is unbiased only up to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .estimators import BY_EXAMPLE, ESTIMATORS, EXACT, FORWARD, REVERSE, XTRACE, Estimator, Problem
from .estimators.sketches import most_samples
from .linearization import InvalidValueError, TracedValueError, is_concrete
from .outlook import ENDLESS, SKETCH, error_of, need_of, samples_for, spectra_of
from .pilot import Pilot, relative_error
from .probes import Probes
from .sampling import Assess, Outcome, Plan, Run, fixed, to_tolerance

PILOT = 8
"""Samples of a pilot towards a tolerance."""

SHARE = 12
"""At a fixed cost, passes for each sample of the pilot: a sixth of them go there; ..."""

LEAST = 4
"""... but no fewer samples than these, below which there is nothing to see, ..."""

MOST = 0.45
"""... and no pilot that takes more than this share of the passes."""

ENOUGH = 8
"""Samples from which on an error bar corrects a forecast."""

WORTH = 8
"""Forward and reverse probes are only compared where one of them is expected to take this many times the passes."""

CLEARLY = 2.0
"""The factor in error by which forward probes must beat reverse ones in a pilot of both, or the other way round."""

FEW_EXAMPLES = 64
"""The most examples for which norms and products are taken example by example, ..."""

IN_FACTORS = 512
"""... and where gradients come in factors; in between, as many as N example_size ≤ FEW_EXAMPLES · P allows.

Measured at equal time on an MLP of 27,000 parameters: 7 to 14 times smaller errors for effective ranks, from N = 32 to
512; but at 512 a pass with its Gram matrix took 30 times as long as a pass of reverse."""


def sample(problem: Problem, plan: Plan, assess: Assess, run: Run | None = None) -> Outcome:
    """Spend what the plan allows, from the start or from where a run has stopped."""
    if plan.method == EXACT.name and run is None:
        return _exact(problem)
    by_cost = plan.probes is not None or plan.passes is not None
    if run is not None:
        go_on = fixed(problem, plan, run.estimator, run=run) if by_cost else None
        return go_on or to_tolerance(problem, plan, assess, run.estimator, run=run, need_of=need_of(problem))
    if by_cost and plan.method == "auto":
        return _auto_fixed(problem, plan, assess)
    if by_cost:
        return fixed(problem, plan, ESTIMATORS[plan.method])
    try:
        if plan.method == "auto":
            return _auto_to_tolerance(problem, plan, assess)
        return to_tolerance(problem, plan, assess, ESTIMATORS[plan.method], need_of=need_of(problem))
    except TracedValueError as error:
        raise TracedValueError(
            "rtol= decides from values how far to go, which cannot be traced; inside jit, grad or vmap give passes= "
            "or probes= for a fixed cost"
        ) from error


def _exact(problem: Problem, why: str = "") -> Outcome:
    return Outcome(EXACT.run(problem), EXACT.name, why)


def _exactly(problem: Problem) -> tuple[int, Callable[[str], Outcome]]:
    """Passes of the cheapest way to exact moments, and that way, which takes why it was chosen.

    For traces that can be all outputs of an example at a time, M/N passes with gradients of single examples.
    """
    passes = EXACT.passes(problem)
    units = BY_EXAMPLE.all_units(problem) if BY_EXAMPLE.offered(problem) else None
    if units is None or BY_EXAMPLE.passes(problem, units) >= passes:
        return passes, lambda why: _exact(problem, why)

    def by_example(why: str) -> Outcome:
        state = BY_EXAMPLE.extend(problem, None, BY_EXAMPLE.draw(problem, 0, 0, units))
        return Outcome(
            BY_EXAMPLE.moments(problem, state), BY_EXAMPLE.name, f"{why}; {BY_EXAMPLE.remark(problem, state)}"
        )

    return BY_EXAMPLE.passes(problem, units), by_example


# A fixed cost ---------------------------------------------------------------------------------------------------------


def _auto_fixed(problem: Problem, plan: Plan, assess: Assess) -> Outcome:
    one_sided, why = _prior(problem, plan.probes)
    if plan.probes is not None:
        return fixed(problem, plan, one_sided, why)
    assert plan.passes is not None
    exact, run_exactly = _exactly(problem)
    if exact <= plan.passes:
        return run_exactly(f"exact: its {exact} passes fit in passes={plan.passes}")
    pilot = max(LEAST, plan.passes // (SHARE * len(problem.kernels)))
    if not _can_sketch(problem, pilot):
        return fixed(problem, plan, one_sided, why)
    if SKETCH.passes(problem, pilot) > MOST * plan.passes:
        if problem.pairs and one_sided is not BY_EXAMPLE and SKETCH.samples(problem, plan.passes) >= SKETCH.fewest:
            return fixed(problem, plan, SKETCH, f"{SKETCH.name}: few pairs of one-sided probes say little of a norm")
        return fixed(problem, plan, one_sided, why)
    state = SKETCH.extend(problem, None, SKETCH.draw(problem, plan.seed, 0, pilot))
    spectra = spectra_of(problem, SKETCH, state)
    if not spectra:
        return Outcome(SKETCH.moments(problem, state), SKETCH.name, _exhausted(pilot))
    left = plan.passes - problem.passes
    adoptable = SKETCH.on_outputs(problem)
    samples = {
        one_sided.name: one_sided.samples(problem, left),
        SKETCH.name: SKETCH.samples(problem, plan.passes),
        XTRACE.name: XTRACE.samples(problem, plan.passes if adoptable else left),
    }
    errors = {name: error_of(problem, spectra, ESTIMATORS[name], count) for name, count in samples.items()}
    best = min((name for name in samples if samples[name] >= ESTIMATORS[name].fewest), key=lambda name: errors[name])
    if best == one_sided.name or (best == XTRACE.name and not adoptable):
        estimator = ESTIMATORS[best]
        state = estimator.extend(problem, None, estimator.draw(problem, plan.seed, 0, samples[best]))
        return Outcome(estimator.moments(problem, state), best, _told(best, errors, pilot))
    have, nystrom = pilot, samples[SKETCH.name]
    if adoptable and min(samples[XTRACE.name], nystrom) > have:
        have = min(samples[XTRACE.name], nystrom)
        state = SKETCH.extend(problem, state, SKETCH.draw(problem, plan.seed, pilot, have))
        spectra = spectra_of(problem, SKETCH, state)
        if not spectra:
            return Outcome(SKETCH.moments(problem, state), SKETCH.name, _exhausted(have))
        errors |= {
            name: error_of(problem, spectra, ESTIMATORS[name], samples[name]) for name in (SKETCH.name, XTRACE.name)
        }
        if have >= ENOUGH:  # what XNysTrace is off by now is known better than forecast
            seen = max(relative_error(e) for e in assess(SKETCH.moments(problem, state), SKETCH.name))
            errors[SKETCH.name] *= seen / error_of(problem, spectra, SKETCH, have)
    if adoptable and errors[XTRACE.name] < errors[SKETCH.name] and XTRACE.fewest <= have <= samples[XTRACE.name]:
        adopted = XTRACE.adopt(problem, state)
        return Outcome(XTRACE.moments(problem, adopted), XTRACE.name, _told(XTRACE.name, errors, have))
    if nystrom > have:
        state = SKETCH.extend(problem, state, SKETCH.draw(problem, plan.seed, have, nystrom))
    return Outcome(SKETCH.moments(problem, state), SKETCH.name, _told(SKETCH.name, errors, have))


def _told(best: str, errors: dict[str, float], samples: int) -> str:
    """Why it is `best`, for the result."""
    parts = ", ".join(f"{name} {error:.1g}" for name, error in sorted(errors.items(), key=lambda item: item[1]))
    return f"{best}: errors to expect after {samples} samples of a sketch: {parts}"


def _exhausted(samples: int) -> str:
    return f"{SKETCH.name}: {samples} samples have the whole range of the kernel, so the result is exact"


# A tolerance ----------------------------------------------------------------------------------------------------------


def _auto_to_tolerance(problem: Problem, plan: Plan, assess: Assess) -> Outcome:
    exact, turn_exact = _exactly(problem)
    one_sided, why = _prior(problem, None)
    if exact <= min(plan.max_passes, max(one_sided.first, one_sided.passes(problem, one_sided.first))):
        return turn_exact(f"exact: {exact} passes cost no more than a first sample")

    def finish(estimator: Estimator, reason: str, run: Run | None) -> Outcome:
        return to_tolerance(problem, plan, assess, estimator, reason, run, turn_exact, exact, need_of(problem))

    if not _can_sketch(problem, PILOT) or SKETCH.passes(problem, PILOT) > plan.max_passes // 4:
        return finish(*_compare_modes(problem, plan, assess, one_sided, why))
    adoptable = SKETCH.on_outputs(problem)
    pilot = Pilot(problem, plan, assess)
    for samples in (LEAST, PILOT) if adoptable else (PILOT,):
        if not pilot.grow(samples):
            return pilot.outcome(_exhausted(samples))
        if samples == LEAST and pilot.enough:
            return pilot.outcome(f"{SKETCH.name}: {samples} samples of a pilot were enough")
    spectra, target = pilot.spectra, pilot.target
    affordable = problem.passes + exact <= plan.max_passes
    costs: dict[str, float] = {EXACT.name: exact + problem.passes if affordable else math.inf}
    for estimator in (one_sided, SKETCH, XTRACE):
        samples = samples_for(problem, spectra, estimator, target)
        lost = 0 if estimator is SKETCH or (estimator is XTRACE and adoptable) else problem.passes
        reached = error_of(problem, spectra, estimator, samples) <= target
        costs[estimator.name] = lost + estimator.passes(problem, samples) if reached else math.inf
    best = min(costs, key=lambda name: costs[name])
    told = ", ".join(
        f"{name} {cost}" for name, cost in sorted(costs.items(), key=lambda item: item[1]) if cost < math.inf
    )
    reason = f"{best}: passes to expect after {PILOT} samples of a sketch: {told}"
    if best == EXACT.name:
        try:
            return turn_exact(reason)
        except KeyboardInterrupt:
            return pilot.outcome("", interrupted=True)
    if best == one_sided.name and costs[best] < WORTH * one_sided.passes(problem, PILOT):
        return finish(one_sided, reason, None)
    if best == one_sided.name:
        return finish(*_compare_modes(problem, plan, assess, one_sided, reason))
    if best == XTRACE.name and not adoptable:
        return finish(XTRACE, reason, None)
    if best == XTRACE.name:
        try:
            still, why = pilot.wait(samples_for(problem, spectra, XTRACE, target))
            if not pilot.spectra:
                return pilot.outcome(_exhausted(pilot.samples))
            if still:
                return finish(XTRACE, why or reason, pilot.adopted())
        except KeyboardInterrupt:
            return pilot.outcome("", interrupted=True)
        reason = why
    return finish(SKETCH, reason, pilot.run)


def _compare_modes(
    problem: Problem, plan: Plan, assess: Assess, favourite: Estimator, why: str
) -> tuple[Estimator, str, Run | None]:
    """Both one-sided modes on a few probes, where both exist; the winner's probes stay in its run."""
    if favourite is BY_EXAMPLE or not (problem.has("vjp") and problem.has("jvp")):
        return favourite, why, None
    pilots = {}
    for estimator in (REVERSE, FORWARD):
        cost = estimator.passes(problem, PILOT)
        if problem.passes + cost > plan.max_passes // 4:
            return favourite, why, None
        state = estimator.extend(problem, None, estimator.draw(problem, plan.seed, 0, PILOT))
        found = assess(estimator.moments(problem, state), estimator.name)
        error = max(relative_error(e) for e in found)
        pilots[estimator.name] = (error * math.sqrt(cost), state)
    other = FORWARD if favourite is REVERSE else REVERSE
    ratio = pilots[favourite.name][0] / max(pilots[other.name][0], 1e-300)
    winner = other if ratio > CLEARLY else favourite
    told = f"{winner.name}: in a pilot of {PILOT} probes a mode, {favourite.name}/{other.name} errors were {ratio:.2g}"
    lost = problem.passes - winner.passes(problem, PILOT)
    return winner, told, Run.of(problem, winner, pilots[winner.name][1], PILOT, plan.seed, lost)


# What they share ------------------------------------------------------------------------------------------------------


def _prior(problem: Problem, probes: Probes | None) -> tuple[Estimator, str]:
    """Reverse by example where that pays, else the one-sided mode on the smaller side.

    The probes of the latter have the smaller variance where the diagonal is even.
    """
    if probes is not None and probes.cotangents is None and probes.tangents is not None:
        return FORWARD, "forward: the probes given are tangents"
    if probes is not None:
        return REVERSE, "reverse: the probes given are cotangents"
    if _by_example_pays(problem):
        return BY_EXAMPLE, f"{BY_EXAMPLE.name}: its samples have no noise between examples"
    parameters = min(problem.parameters(a) for a in range(len(problem.kernels)))
    if not problem.has("jvp"):
        return REVERSE, "reverse: there is no JVP"
    if not problem.has("vjp"):
        return FORWARD, "forward: there is no VJP"
    if problem.size <= parameters:
        return REVERSE, f"reverse: {problem.size} outputs are no more than {parameters} parameters"
    return FORWARD, f"forward: {parameters} parameters are fewer than {problem.size} outputs"


def _by_example_pays(problem: Problem) -> bool:
    """Whether gradients of single examples are there and worth their price.

    For traces always: a pass costs 0.3 to 2 ordinary ones where dense layers or convolutions hold most parameters, and
    up to 20 where examples go one by one (a GRU in torch), for a variance that is smaller about N-fold. For norms
    and products, Gram matrices of the gradients of all examples come on top.
    """
    if not BY_EXAMPLE.offered(problem):
        return False
    if BY_EXAMPLE.all_units(problem) is not None:
        return True
    for a, kernel in enumerate(problem.kernels):
        J: Any = kernel.J
        examples = J.examples[1]
        if examples > IN_FACTORS or examples * J.example_size > FEW_EXAMPLES * problem.parameters(a):
            return False
    return True


def _can_sketch(problem: Problem, pilot: int) -> bool:
    """Whether a pilot of so many samples can be drawn, kept in memory, and looked at."""
    if SKETCH.samples(problem, ENDLESS) < min(pilot, most_samples(problem)):
        return False
    first = problem.kernels[0].J
    concrete = all(is_concrete(problem.xp.max(problem.xp.abs(array))) for array in (first.outputs, *first.params))
    return concrete and not problem.groups.names and problem.has("vjp") and problem.has("jvp")


def check_resumable(plan: Plan) -> None:
    """Refuse to keep the state of what could not be carried on.

    Raises
    ------
    InvalidValueError
    """
    reason = ""
    if plan.method == EXACT.name:
        reason = "is done when it is done"
    elif plan.probes is not None:
        reason = "has no further probes where probes= hands them in"
    elif plan.method == "auto" and plan.passes is not None:
        reason = "chooses by the number of passes; use rtol=, or name a method"
    elif plan.method != "auto" and not ESTIMATORS[plan.method].resumable:
        reason = "samples in a way that depends on the total"
    if reason:
        raise InvalidValueError(f"state=True: method={plan.method!r} cannot be carried on: it {reason}")
