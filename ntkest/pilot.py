"""A run to a tolerance by the method that a pilot favours: a sketch that grows until it is done, or clear who goes on.

The first images of its probes, before they are pushed back, are those of one-sided probes: where traces alone are
wanted and these do, half a sketch is enough. Whole samples are XNysTrace's. After each look the passes that every
estimator would still take are forecast from the spectrum that the sketch shows. It goes on while XNysTrace is the
cheapest, or XTrace in one of its forms, which take the probes over at any time for what they would have spent on them
beyond; `reverse` takes over the first images of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .estimate import Estimate
from .estimators import BY_EXAMPLE, EXACT, FORWARD, REVERSE, XTRACE, XTRACE_POWER, Estimator, Problem, XTrace
from .estimators.sketches import most_samples
from .forecast import Spectrum
from .linearization import number
from .outlook import CONFIDENCE, SKETCH, error_of, need_of, samples_for, spectra_of
from .prior import can_sketch, exactly, prior
from .progress import progress_of
from .sampling import (
    Assess,
    Outcome,
    Plan,
    Run,
    affordable,
    by_large_numbers,
    excess_of,
    next_look,
    to_tolerance,
)

RANGES: Mapping[str, XTrace] = {estimator.name: estimator for estimator in (XTRACE, XTRACE_POWER)}
"""What can take a sketch over, by name."""

FIRST = 4
"""Samples before the first look, ..."""

FEWEST = 5
"""... the fewest with which XTrace has an error bar to go by, ..."""

SURE = 8
"""... before others than the sketches are taken from a forecast, and an error bar corrects it, ..."""

SETTLED = 16
"""... and before the forecast need not quite agree with the error bar that this was enough: ..."""

CAUTION = 0.9
"""... the share of the tolerance that it has to be within, because looks are many, ..."""

LENIENT = 1.3
"""... and the factor by which the forecast may be larger then. Either may err by luck."""

RELUCTANT = 1.1
"""The factor in passes by which forms of XTrace must beat XNysTrace, which sees more while it goes on."""

PROBES = 8
"""Probes of a mode in a pilot of both modes."""

WORTH = 8
"""Forward and reverse probes are only compared where one of them is expected to take this many times the passes."""

CLEARLY = 2.0
"""The factor in error by which forward probes must beat reverse ones in a pilot of both, or the other way round."""


def relative_error(estimate: Estimate) -> float:
    """The standard error over the value."""
    return number(estimate.std_error) / max(abs(number(estimate.value)), 1e-300)


def exhausted(samples: int) -> str:
    """Why a sketch is done that has all there is."""
    return f"{SKETCH.name}: {samples} samples have the whole range of the kernel, so the result is exact"


def inherits(problem: Problem, one_sided: Estimator) -> bool:
    """Whether a one-sided estimator can use the images of the sketch's probes."""
    return one_sided is REVERSE and not problem.pairs


def auto_to_tolerance(problem: Problem, plan: Plan, assess: Assess) -> Outcome:
    """Exact passes if they cost no more than a first sample, else what a pilot says."""
    passes, run_exactly = exactly(problem)
    one_sided, why = prior(problem)
    if passes <= min(plan.max_passes, max(one_sided.first, one_sided.passes(problem, one_sided.first))):
        return run_exactly(f"exact: {passes} passes cost no more than a first sample")

    def finish(estimator: Estimator, why: str, run: Run | None = None) -> Outcome:
        return to_tolerance(problem, plan, assess, estimator, why, run, run_exactly, passes, need_of(problem))

    if can_sketch(problem, SURE) and SKETCH.passes(problem, SURE) <= plan.max_passes // 4:
        return Pilot(problem, plan, assess, one_sided, (passes, run_exactly), finish).run()
    return finish(*_compare_modes(problem, plan, assess, one_sided, why))


class Pilot:
    """Samples of XNysTrace so far, and what they say."""

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        assess: Assess,
        one_sided: Estimator,
        exact: tuple[int, Callable[[str], Outcome]],
        finish: Callable[..., Outcome],
    ) -> None:
        self.problem, self.plan, self.assess, self.one_sided = problem, plan, assess, one_sided
        self.exact, self.run_exactly = exact
        self.finish = finish
        self.state: Any = None
        self.samples = 0
        self.spectra: list[Spectrum] = []
        """A likeness of each kernel's spectrum; none where there is nothing left to see."""
        self.values: Sequence[Estimate] = ()

    def run(self) -> Outcome:
        """Look, and go on or hand over, until the tolerance is met or max_passes are spent."""
        problem, want = self.problem, min(FIRST, most_samples(self.problem))
        try:
            half = self.glance(want)
            if half is not None:
                return half
            while True:
                if not self.spectra:
                    return self.outcome(exhausted(self.samples))
                if self.enough:
                    return self.outcome(f"{SKETCH.name}: {self.samples} samples of a sketch were enough")
                needs, costs = self.forecast()
                best = min(costs, key=lambda name: costs[name] * (RELUCTANT if name in RANGES else 1.0))
                why = _told(best, costs, self.samples)
                if best not in (SKETCH.name, *RANGES) or (best in RANGES and needs[best] <= self.samples):
                    return self.hand_over(best, needs.get(best, 0), costs[best], why)
                want = next_look(problem, SKETCH, self.samples, max(needs[best], self.samples + 1))
                want = affordable(problem, SKETCH, self.plan, self.samples, want)
                if want <= self.samples:
                    return self.outcome(f"{SKETCH.name}: max_passes={self.plan.max_passes} end here; {why}")
                self.grow(want)
        except KeyboardInterrupt:
            if self.state is None:
                raise
            return self.outcome("", interrupted=True)

    # Samples ----------------------------------------------------------------------------------------------------------

    def glance(self, samples: int) -> Outcome | None:
        """The first samples; an outcome if for a trace the first half of each is enough."""
        problem, seed = self.problem, self.plan.seed
        captured = SKETCH.capture(problem, None, SKETCH.draw(problem, seed, 0, samples))
        while problem.needs == {("trace", 0)}:
            state = SKETCH.one_sided(problem, captured)
            moments = REVERSE.moments(problem, state)
            self.values = self.assess(moments, REVERSE.name)
            if all(e.converged for e in self.values):
                run = Run.of(problem, REVERSE, state, samples, seed)
                return Outcome(moments, REVERSE.name, f"{REVERSE.name}: {samples} probes were enough", run=run)
            need = by_large_numbers(samples, max(map(relative_error, self.values)) / self.target)
            need = min(max(need, samples + 1), most_samples(problem))
            if not samples < need <= 2 * samples or need > SETTLED:
                break
            captured = SKETCH.capture(problem, captured, SKETCH.draw(problem, seed, samples, need))
            samples = need
        self._see(SKETCH.complete(problem, captured), samples)
        return None

    def grow(self, samples: int) -> None:
        """Go on to so many samples."""
        probes = SKETCH.draw(self.problem, self.plan.seed, self.samples, samples)
        self._see(SKETCH.extend(self.problem, self.state, probes), samples)

    def _see(self, state: Any, samples: int) -> None:
        problem, plan = self.problem, self.plan
        self.state, self.samples = state, samples
        progress_of(plan.progress)(problem.passes, plan.max_passes)
        self.spectra = spectra_of(problem, SKETCH, state)
        self.values = self.assess(SKETCH.moments(problem, state), SKETCH.name)

    # What they say ----------------------------------------------------------------------------------------------------

    @property
    def target(self) -> float:
        """The relative standard error that is wanted."""
        plan = self.plan
        return min(max(plan.rtol, plan.atol / max(abs(number(e.value)), 1e-300)) for e in self.values) / CONFIDENCE

    @property
    def enough(self) -> bool:
        """Whether intervals say that the tolerance is met, and the forecast does not contradict."""
        if max(excess_of(self.plan, e) for e in self.values) > CAUTION:
            return False
        lenience = LENIENT if self.samples >= SETTLED else 1.0
        return error_of(self.problem, self.spectra, SKETCH, self.samples) <= lenience * self.target

    def forecast(self) -> tuple[dict[str, int], dict[str, float]]:
        """By estimator: the samples that it needs, and the passes of the whole run then."""
        problem, spectra, target = self.problem, self.spectra, self.target
        needs, costs = {}, {}
        sure = self.samples >= SURE

        def consider(estimator: Estimator, aim: float, least: int, kept: int) -> None:
            samples = samples_for(problem, spectra, estimator, aim, least)
            reached = error_of(problem, spectra, estimator, samples) <= aim
            needs[estimator.name] = samples
            lost = problem.passes - (estimator.passes(problem, kept) if kept else 0)
            costs[estimator.name] = lost + estimator.passes(problem, samples) if reached else math.inf

        # what it is off by now is known better than forecast, if not from few samples
        now = error_of(problem, spectra, SKETCH, self.samples)
        seen = max(*(relative_error(e) for e in self.values), 1e-300)
        aim = target * (now / seen) ** (1.0 if sure else 0.5)
        consider(SKETCH, aim, self.samples, self.samples)
        for name, estimator in RANGES.items():
            consider(estimator, target, FEWEST, 0)
            if costs[name] < math.inf:
                enough = min(needs[name], self.samples)
                further = estimator.growth(problem, enough, needs[name])
                costs[name] = estimator.adoption(problem, enough) + further
                costs[name] += SKETCH.passes(problem, max(enough, self.samples))
        if sure:
            kept = self.samples if inherits(self.problem, self.one_sided) else 0
            consider(self.one_sided, target, max(self.one_sided.first, kept), kept)
            if problem.passes + self.exact <= self.plan.max_passes:
                costs[EXACT.name] = problem.passes + self.exact
        return needs, costs

    # Ways on ----------------------------------------------------------------------------------------------------------

    def hand_over(self, best: str, need: int, cost: float, why: str) -> Outcome:
        """The rest of the run, by another estimator."""
        problem, plan, assess, seed = self.problem, self.plan, self.assess, self.plan.seed
        if best == EXACT.name:
            return self.run_exactly(why)
        run = None
        if best in RANGES:
            estimator = RANGES[best]
            adopted = estimator.adopt(problem, self.state, need)
            lost = problem.passes - estimator.passes(problem, need)
            return self.finish(estimator, why, Run.of(problem, estimator, adopted, need, seed, lost))
        if inherits(self.problem, self.one_sided):
            state = SKETCH.one_sided(problem, self.state)
            lost = problem.passes - REVERSE.passes(problem, self.samples)
            run = Run.of(problem, REVERSE, state, self.samples, seed, lost)
        if cost < WORTH * PROBES:
            return self.finish(self.one_sided, why, run)
        return self.finish(*_compare_modes(problem, plan, assess, self.one_sided, why, run))

    def outcome(self, why: str, interrupted: bool = False) -> Outcome:
        """The result, if this was all."""
        moments = SKETCH.moments(self.problem, self.state)
        run = Run.of(self.problem, SKETCH, self.state, self.samples, self.plan.seed)
        return Outcome(moments, SKETCH.name, why, interrupted, run)


def _told(best: str, costs: dict[str, float], samples: int) -> str:
    """Why it is `best`, for the result."""
    ranked = sorted((cost, name) for name, cost in costs.items() if cost < math.inf)
    told = ", ".join(f"{name} {cost}" for cost, name in ranked)
    return f"{best}: passes to expect after {samples} samples of a sketch: {told or 'more than there can be'}"


def _compare_modes(
    problem: Problem, plan: Plan, assess: Assess, favourite: Estimator, why: str, run: Run | None = None
) -> tuple[Estimator, str, Run | None]:
    """Both one-sided modes on a few probes, where both exist; the winner's stay in its run.

    The favourite may have a run already.
    """
    if favourite is BY_EXAMPLE or not (problem.has("vjp") and problem.has("jvp")):
        return favourite, why, run
    modes = [estimator for estimator in (REVERSE, FORWARD) if run is None or estimator is not run.estimator]
    if problem.passes + sum(mode.passes(problem, PROBES) for mode in modes) > plan.max_passes // 2:
        return favourite, why, run
    runs = {} if run is None else {run.estimator.name: run}
    for mode in modes:
        state = mode.extend(problem, None, mode.draw(problem, plan.seed, 0, PROBES))
        runs[mode.name] = Run.of(problem, mode, state, PROBES, plan.seed)
    errors = {}
    for name, pilot in runs.items():
        found = assess(pilot.estimator.moments(problem, pilot.state), name)
        errors[name] = max(map(relative_error, found)) * math.sqrt(pilot.estimator.passes(problem, pilot.samples))
    other = FORWARD if favourite is REVERSE else REVERSE
    ratio = errors[favourite.name] / max(errors[other.name], 1e-300)
    winner = runs[(other if ratio > CLEARLY else favourite).name]
    told = f"{winner.estimator.name}: in a pilot of both modes, {favourite.name}/{other.name} errors were {ratio:.2g}"
    lost = problem.passes - winner.estimator.passes(problem, winner.samples)
    return winner.estimator, told, Run.of(problem, winner.estimator, winner.state, winner.samples, plan.seed, lost)
