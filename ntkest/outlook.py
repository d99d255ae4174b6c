"""From a sketch's state to the errors that every estimator can expect, and to the samples that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .estimators import BY_EXAMPLE, XNYSTRACE, XTRACE, XTRACE_POWER, Estimator, Problem, XNysTrace, XTrace
from .forecast import Errors, Spectrum, fit

CONFIDENCE = 2.1
"""Half-widths of 95 % intervals in standard errors, about."""

SKETCH = XNYSTRACE
"""The estimator of pilots."""

ENDLESS = 2**40
"""Passes without end."""

FORMS: Mapping[str, Callable[[Spectrum, float], Errors]] = {
    "reverse": Spectrum.one_sided,
    "forward": Spectrum.one_sided,
    BY_EXAMPLE.name: Spectrum.one_sided,
    "hutchinson": Spectrum.two_sided,
    "hutch++": Spectrum.deflated,
    "hutch++jv": Spectrum.deflated,
    "nystrom++": lambda spectrum, probes: spectrum.deflated(probes, power=1),
    SKETCH.name: Spectrum.nystrom,
    XTRACE.name: Spectrum.range,
    XTRACE_POWER.name: lambda spectrum, samples: spectrum.range(samples, power=4),
}
"""The errors of an estimator, by its name, from its number of samples; not of those that decide on the way."""


def spectra_of(problem: Problem, estimator: XNysTrace | XTrace, state: Any) -> list[Spectrum]:
    """A likeness of the spectrum of each kernel of which a sketch has not all of the range: none if it has them all."""
    sketches = [estimator.sketch(problem, state, a) for a in problem.indices]
    return [fit(sketch) for sketch in sketches if sketch is not None]


def error_of(
    problem: Problem, spectra: Sequence[Spectrum], estimator: Estimator, samples: int, crowded: bool = False
) -> float:
    """The relative error to expect of the worst quantity that the wanted moments can make.

    `crowded` lets it count that samples of a sketch crowd, which is right where the number of samples is fixed. Towards
    a tolerance it would hand over to XTrace as soon as a step in the spectrum is crossed, where that has its rare
    large errors: of runs for a trace with 50 equal eigenvalues .915 ended within 2 % with it, and .93 without, before
    forecasts knew where a plateau ends.
    """
    form, worth = FORMS[estimator.name], _worth(problem, estimator)
    if crowded and estimator is SKETCH:
        form = partial(Spectrum.nystrom, crowded=True)
    return max(_combined(problem, form(spectrum, max(samples, 2) * worth)) for spectrum in spectra)


def _worth(problem: Problem, estimator: Estimator) -> int:
    """Plain probes that one is worth, about: example by example N, as if all N² blocks of K weighed the same.

    Measured on networks on real data it is more; where examples have little in common, it can be as little as 1.
    """
    examples = problem.kernels[0].J.examples
    return examples[1] if estimator.name == BY_EXAMPLE.name and examples is not None else 1


def _combined(problem: Problem, errors: Errors) -> float:
    if problem.wants("cross"):
        return errors.square
    if problem.wants("square"):
        return errors.rank if problem.wants("trace") else errors.square / 2
    return errors.trace


def samples_for(
    problem: Problem, spectra: Sequence[Spectrum], estimator: Estimator, target: float, least: int | None = None
) -> int:
    """The samples, from `least` on, that bring the relative standard error down to `target`, or all that there are."""
    return _first(
        lambda samples: error_of(problem, spectra, estimator, samples) <= target,
        estimator.first if least is None else least,
        estimator.samples(problem, ENDLESS),
    )


def need_of(problem: Problem) -> Callable[[Estimator, Any, int, float], int | None]:
    """The samples at which a sketch's error is to fall by a factor, from the spectrum that it shows now."""

    def need(estimator: Estimator, state: Any, have: int, excess: float) -> int | None:
        spectra = spectra_of(problem, estimator, state) if isinstance(estimator, XNysTrace | XTrace) else []
        if not spectra:
            return None
        now = error_of(problem, spectra, estimator, have)
        return samples_for(problem, spectra, estimator, now / (1.05 * excess), have + 1)

    return need


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The least integer in low … high for which `holds`, which once true stays so; high if there is none."""
    low = min(low, high)
    step = low
    while step < high and not holds(step):
        low, step = step + 1, min(2 * step, high)
    high = step
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
