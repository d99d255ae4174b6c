"""What is known before the first pass.

Which one-sided mode suits a problem, what exact values cost, and whether a sketch can be drawn and looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .estimators import BY_EXAMPLE, EXACT, FORWARD, REVERSE, Estimator, Problem
from .estimators.sketches import most_samples
from .linearization import Array, Blocks, is_concrete
from .outlook import ENDLESS, SKETCH
from .probes import Probes
from .sampling import Outcome

FEW_EXAMPLES = 64
"""The most examples for which norms and products are taken example by example, ..."""

IN_FACTORS = 512
"""... and where gradients come in factors; in between, as many as N example_size ≤ FEW_EXAMPLES · P allows.

Measured at equal time on an MLP of 27,000 parameters: 7 to 14 times smaller errors for effective ranks, from N = 32 to
512; but at 512 a pass with its Gram matrix took 30 times as long as a pass of reverse."""


def prior(problem: Problem, probes: Probes | None = None) -> tuple[Estimator, str]:
    """Reverse by example where that pays, else the one-sided mode on the smaller side; and why.

    The probes of the latter have the smaller variance where the diagonal is even.
    """
    if probes is not None and probes.cotangents is None and probes.tangents is not None:
        return FORWARD, "forward: the probes given are tangents"
    if probes is not None:
        return REVERSE, "reverse: the probes given are cotangents"
    if _by_example_pays(problem):
        return BY_EXAMPLE, f"{BY_EXAMPLE.name}: its samples have no noise between examples"
    parameters = min(problem.parameters(a) for a in problem.indices)
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


def can_sketch(problem: Problem, samples: int) -> bool:
    """Whether a sketch of so many samples can be drawn, kept in memory, and looked at."""
    if SKETCH.samples(problem, ENDLESS) < min(samples, most_samples(problem)):
        return False
    first = problem.kernels[0].J
    concrete = is_concrete(problem.compiled(_one_of_each, problem.xp)((first.outputs, *first.params)))
    return concrete and not problem.groups.names and problem.has("vjp") and problem.has("jvp")


def _one_of_each(xp: ModuleType, arrays: Blocks) -> Array:
    """A truth for which the first number of each array is looked at; array-only."""
    return xp.any(xp.stack([xp.any(xp.reshape(a, (-1,))[:1] > 0) for a in arrays]))


def exact(problem: Problem, why: str = "") -> Outcome:
    """Exact moments."""
    return Outcome(EXACT.run(problem), EXACT.name, why)


def exactly(problem: Problem) -> tuple[int, Callable[[str], Outcome]]:
    """What the cheapest way to exact moments costs, in passes, and that way, which takes why it was chosen.

    For traces that can be all outputs of an example at a time, M/N passes with gradients of single examples.
    """
    passes = EXACT.cost(problem)
    units = BY_EXAMPLE.all_units(problem) if BY_EXAMPLE.offered(problem) else None
    if units in (None, problem.size) or BY_EXAMPLE.passes(problem, units) > passes:
        return passes, lambda why: exact(problem, why)

    def by_example(why: str) -> Outcome:
        state = BY_EXAMPLE.extend(problem, None, BY_EXAMPLE.draw(problem, 0, 0, units))
        return Outcome(
            BY_EXAMPLE.moments(problem, state), BY_EXAMPLE.name, f"{why}; {BY_EXAMPLE.remark(problem, state)}"
        )

    return BY_EXAMPLE.passes(problem, units), by_example
