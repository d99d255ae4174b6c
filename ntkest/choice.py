"""Which estimator: the one that was named, or, for "auto", the one that a pilot predicts to be the best.

A few samples of XNysTrace show the spectrum's head and the mass of its tail, from which the errors of all estimators
are forecast (`forecast`). Their passes are not lost to XNysTrace, which goes on from them; nor to the forms of XTrace
where the sketch is on the side of the outputs, for they take it over. At a fixed cost the choice between these waits
until as many samples are there as the form in question will have; towards a tolerance it is made anew at every look
(`pilot`). For traces, one-sided probes have half of the pilot's passes.
Without a pilot (under tracing, without both modes, by layer, or on a small budget) it is the one-sided mode on the
smaller side. Exact passes are taken where they cost less.

A choice that looks at values makes the estimate depend on itself: "auto" is unbiased only up to that.
"""

from __future__ import annotations

from typing import Any

from .estimators import BY_EXAMPLE, ESTIMATORS, EXACT, Problem
from .linearization import InvalidValueError, TracedValueError
from .outlook import SKETCH, error_of, need_of, spectra_of
from .pilot import RANGES, auto_to_tolerance, exhausted, inherits, relative_error
from .prior import can_sketch, exact, exactly, prior
from .sampling import Assess, Outcome, Plan, Run, fixed, to_tolerance

SHARE = 12
"""At a fixed cost, passes for each sample of the pilot: a sixth of them go there; ..."""

LEAST = 4
"""... but no fewer samples than these, below which there is nothing to see, ..."""

MOST = 0.45
"""... and no pilot that takes more than this share of the passes."""

ENOUGH = 8
"""Samples from which on an error bar corrects a forecast."""

SURELY = 1.15
"""The factor in error by which one-sided probes must beat all sketches: few samples may have seen all that is not flat,
and a run that goes on looks again."""

CLEARLY = 1.15
"""The factor in error by which those with fewer samples must beat those with more, for which more is yet unseen."""


def sample(problem: Problem, plan: Plan, assess: Assess, run: Run | None = None) -> Outcome:
    """Spend what the plan allows, from the start or from where a run has stopped."""
    if plan.method == EXACT.name and run is None:
        return exact(problem)
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
            return auto_to_tolerance(problem, plan, assess)
        return to_tolerance(problem, plan, assess, ESTIMATORS[plan.method], need_of=need_of(problem))
    except TracedValueError as error:
        raise TracedValueError(
            "rtol= decides from values how far to go, which cannot be traced; inside jit, grad or vmap give passes= "
            "or probes= for a fixed cost"
        ) from error


# A fixed cost ---------------------------------------------------------------------------------------------------------


def _auto_fixed(problem: Problem, plan: Plan, assess: Assess) -> Outcome:
    one_sided, why = prior(problem, plan.probes)
    if plan.probes is not None:
        return fixed(problem, plan, one_sided, why)
    assert plan.passes is not None
    cost, run_exactly = exactly(problem)
    if cost <= plan.passes:
        return run_exactly(f"exact: its {cost} passes fit in passes={plan.passes}")
    pilot = max(LEAST, plan.passes // (SHARE * len(problem.kernels)))
    if not can_sketch(problem, pilot):
        return fixed(problem, plan, one_sided, why)
    if SKETCH.passes(problem, pilot) > MOST * plan.passes:
        if problem.pairs and one_sided is not BY_EXAMPLE and SKETCH.samples(problem, plan.passes) >= SKETCH.fewest:
            return fixed(problem, plan, SKETCH, f"{SKETCH.name}: few pairs of one-sided probes say little of a norm")
        return fixed(problem, plan, one_sided, why)
    sketch = SKETCH.extend(problem, None, SKETCH.draw(problem, plan.seed, 0, pilot))
    spectra = spectra_of(problem, SKETCH, sketch)
    if not spectra:
        return Outcome(SKETCH.moments(problem, sketch), SKETCH.name, exhausted(pilot))
    left = plan.passes - problem.passes
    kept = pilot if inherits(problem, one_sided) else 0
    samples = {
        one_sided.name: one_sided.samples(problem, left + (one_sided.passes(problem, kept) if kept else 0)),
        SKETCH.name: SKETCH.samples(problem, plan.passes),
        **{name: range_.samples(problem, plan.passes) for name, range_ in RANGES.items()},
    }
    errors = {
        name: error_of(problem, spectra, ESTIMATORS[name], count, crowded=True)
        for name, count in samples.items()
        if count >= ESTIMATORS[name].fewest
    }
    best = min(errors, key=lambda name: errors[name] * (SURELY if name == one_sided.name else 1.0))
    if best == one_sided.name:
        state = SKETCH.one_sided(problem, sketch) if kept else None
        state = one_sided.extend(problem, state, one_sided.draw(problem, plan.seed, kept, samples[best]))
        return Outcome(one_sided.moments(problem, state), best, _told(best, errors, pilot))
    return _sketched(problem, plan, assess, sketch, pilot, samples, errors)


def _sketched(
    problem: Problem,
    plan: Plan,
    assess: Assess,
    sketch: Any,
    have: int,
    samples: dict[str, int],
    errors: dict[str, float],
) -> Outcome:
    """Go on from a sketch, to look again when it has as many samples as one of `RANGES` will have: that may take over.

    `errors` are those to expect of the candidates with their `samples`.
    """
    nystrom = samples[SKETCH.name]
    rivals = sorted((n for n in RANGES if n in errors), key=lambda n: samples[n])
    for number, name in enumerate(rivals):
        want = min(samples[name], nystrom)
        if want > have:
            sketch = SKETCH.extend(problem, sketch, SKETCH.draw(problem, plan.seed, have, want))
            have = want
        spectra = spectra_of(problem, SKETCH, sketch)
        if not spectra:
            return Outcome(SKETCH.moments(problem, sketch), SKETCH.name, exhausted(have))
        left = {
            n: error_of(problem, spectra, ESTIMATORS[n], samples[n], crowded=True)
            for n in (SKETCH.name, *rivals[number:])
        }
        if have >= ENOUGH:  # what XNysTrace is off by now is known better than forecast
            seen = max(relative_error(e) for e in assess(SKETCH.moments(problem, sketch), SKETCH.name))
            forecast = error_of(problem, spectra, SKETCH, have, crowded=True)
            off = seen / forecast if forecast > 0 else 1.0  # 0 where it has all of the range
            left = {n: error * (off if n == SKETCH.name else max(off, 1.0)) for n, error in left.items()}
        errors = errors | left
        if have <= samples[name] and all(CLEARLY * left[name] < error for n, error in left.items() if n != name):
            adopted = RANGES[name].adopt(problem, sketch, have)
            return Outcome(RANGES[name].moments(problem, adopted), name, _told(name, errors, have))
    if nystrom > have:
        sketch = SKETCH.extend(problem, sketch, SKETCH.draw(problem, plan.seed, have, nystrom))
    return Outcome(SKETCH.moments(problem, sketch), SKETCH.name, _told(SKETCH.name, errors, have))


def _told(best: str, errors: dict[str, float], samples: int) -> str:
    """Why it is `best`, for the result."""
    parts = ", ".join(f"{name} {error:.1g}" for name, error in sorted(errors.items(), key=lambda item: item[1]))
    return f"{best}: errors to expect after {samples} samples of a sketch: {parts}"


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
