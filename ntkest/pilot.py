"""The pilot of a run to a tolerance: a sketch that grows until it is clear who goes on from it.

Its samples are XNysTrace's. Where the probes are on the side of the outputs XTrace takes them over at any time for
what it would have spent on them beyond, so that nothing is lost by waiting until as many are there as it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .estimate import Estimate
from .estimators import XTRACE, Problem
from .forecast import Spectrum
from .linearization import number
from .outlook import CONFIDENCE, SKETCH, error_of, samples_for, spectra_of
from .sampling import Assess, Outcome, Plan, Run, progress_of


def relative_error(estimate: Estimate) -> float:
    """The standard error over the value."""
    return number(estimate.std_error) / max(abs(number(estimate.value)), 1e-300)


class Pilot:
    """Samples of XNysTrace so far, and what they say."""

    def __init__(self, problem: Problem, plan: Plan, assess: Assess) -> None:
        self.problem, self.plan, self.assess = problem, plan, assess
        self.state: Any = None
        self.samples = 0
        self.spectra: list[Spectrum] = []
        """A likeness of each kernel's spectrum; none where there is nothing left to see."""
        self.values: Sequence[Estimate] = ()

    def grow(self, samples: int) -> bool:
        """Go on to so many samples; whether the kernels still have range beyond them."""
        problem, plan = self.problem, self.plan
        self.state = SKETCH.extend(problem, self.state, SKETCH.draw(problem, plan.seed, self.samples, samples))
        self.samples = samples
        progress_of(plan.progress)(problem.passes, plan.max_passes)
        self.spectra = spectra_of(problem, SKETCH, self.state)
        self.values = self.assess(SKETCH.moments(problem, self.state), SKETCH.name)
        return bool(self.spectra)

    @property
    def run(self) -> Run:
        """As XNysTrace's."""
        return Run.of(self.problem, SKETCH, self.state, self.samples, self.plan.seed)

    def adopted(self) -> Run:
        """As XTrace's, at its price."""
        state = XTRACE.adopt(self.problem, self.state)
        return Run.of(self.problem, XTRACE, state, self.samples, self.plan.seed)

    def outcome(self, why: str, interrupted: bool = False) -> Outcome:
        """The result, if this was all."""
        moments = SKETCH.moments(self.problem, self.state)
        return Outcome(moments, SKETCH.name, why, interrupted, self.run)

    @property
    def target(self) -> float:
        """The relative standard error that is wanted."""
        plan = self.plan
        return min(max(plan.rtol, plan.atol / max(abs(number(e.value)), 1e-300)) for e in self.values) / CONFIDENCE

    @property
    def enough(self) -> bool:
        """Whether intervals and forecast agree that the tolerance is met: either may err by luck on few samples."""
        return (
            all(e.converged for e in self.values)
            and error_of(self.problem, self.spectra, SKETCH, self.samples) <= self.target
        )

    def needs(self) -> tuple[int, int]:
        """Samples that XNysTrace needs, by its error bars now and their forecast fall, and XTrace, by forecast."""
        now = error_of(self.problem, self.spectra, SKETCH, self.samples)
        seen = max(relative_error(e) for e in self.values)
        aim = self.target * now / max(seen, 1e-300)
        return (
            samples_for(self.problem, self.spectra, SKETCH, aim, self.samples),
            samples_for(self.problem, self.spectra, XTRACE, self.target),
        )

    def wait(self, need: int) -> tuple[bool, str]:
        """Grow towards the `need` of XTrace while that remains the cheaper one; whether it does at the end, and why."""
        problem, why = self.problem, ""
        while (
            self.samples < need and XTRACE.passes(problem, step := min(need, 2 * self.samples)) <= self.plan.max_passes
        ):
            if not self.grow(step) or all(e.converged for e in self.values):
                return False, f"{SKETCH.name}: {step} samples of a sketch were enough"
            own, need = self.needs()
            costs = {SKETCH.name: SKETCH.passes(problem, own), XTRACE.name: XTRACE.passes(problem, need)}
            told = ", ".join(f"{name} {cost}" for name, cost in sorted(costs.items(), key=lambda item: item[1]))
            why = (
                f"{min(costs, key=lambda name: costs[name])}: passes to expect after {step} samples of a sketch: {told}"
            )
            if costs[SKETCH.name] <= costs[XTRACE.name]:
                return False, why
        return True, why
