"""The data stages by name. A stage is a value that maps a `Problem` to `Points`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from ...kernels.images import outputs_each
from ...linearization import InvalidTypeError, InvalidValueError
from .problem import Points, Problem
from .selection import CHOICES, checked, select_by
from .tuning import Tuned
from .wasserstein import Wasserstein


class Stage(Protocol):
    """Anything that can be called so; one's own are as good as those here."""

    def __call__(self, problem: Problem) -> Points:
        """Choose or make points."""
        ...


@dataclass(frozen=True)
class Identity:
    """All examples."""

    def __call__(self, problem: Problem) -> Points:
        """All of them, whatever the count, class after class."""
        order = np.argsort(problem.labels, kind="stable")
        return Points(problem.at(order), problem.labels[order], order)


@dataclass(frozen=True)
class Selection:
    """Some of the examples, by a method of `select`; from the features of the problem, or exact kernels."""

    method: str

    def __call__(self, problem: Problem) -> Points:
        """`problem.count` of each class."""
        chosen = select_by(
            problem.mean_kernel, problem.count, problem.labels, problem.classes, self.method, problem.seed
        )
        points = Points(problem.at(chosen), problem.labels[chosen], chosen)
        if checked(self.method) is None or problem.features is not None:
            return points
        each, count = outputs_each(problem.linearize(points.inputs[:1, ...], check=False)), len(problem.labels)
        return replace(points, gradients=each * count, passes=(each + 1) * count)


STAGES: dict[str, Callable[[], Stage]] = {
    "identity": Identity,
    **{method: partial(Selection, method) for method in ("uniform", *CHOICES)},
    "wasserstein": Wasserstein,
    "tangent": Tuned,
    "inducing": partial(Tuned, "inducing"),
}
"""By name, with default settings."""


def as_stage(stage: Any) -> Stage:
    """A stage by its name, or a stage as it is.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    if isinstance(stage, str):
        if stage not in STAGES:
            raise InvalidValueError(f"data={stage!r} is no data stage; there are {', '.join(STAGES)}")
        return STAGES[stage]()
    if not callable(stage):
        raise InvalidTypeError(f"data= takes the name of a data stage or a function of a Problem, not {stage!r}")
    return stage  # type: ignore[no-any-return]
