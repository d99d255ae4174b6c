"""New inputs tuned through the tangent kernel, down gradients that take second-order differentiation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ...linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    number,
    value_and_gradient,
)
from ...memory import byte_count
from ...progress import progress_of
from .adam import Adam, Arrays
from .descent import descend
from .exact import Gradients, gradients
from .objectives import Induced, Objective, Residual, Seen
from .problem import Points, Problem, check_movable
from .selection import CHOICES, checked, left_by, select_by
from .targets import Targets

LOOK = 10
"""Steps between looks at the whole objective."""


@dataclass(frozen=True)
class Tuned:
    """New inputs in whose tangent space, or from whose tangent kernels, the examples are to be had; a data stage.

    Each class starts from selected examples, and Adam moves them down the gradient of an objective on batches of
    examples. All of it is looked at every few steps, and the best points are kept, so that they are never worse than
    those they started from.

    Parameters
    ----------
    loss : "residual" or "inducing"
        See `objectives.Residual` and `objectives.Induced`.
    steps : int
    rate : float
        How far an input moves in a step, as a share of the standard deviation of all inputs; falls as a cosine.
    ridge : float
        Relative to the mean diagonal of each class kernel among the points.
    batch : int
        Examples that a step looks at.
    start : str
        A method of `select`, or "best" for the one with the lowest objective.
    learned : bool
        With "inducing", values at the points are tuned too, and not those of the model there.
    bounds : (float, float), optional
        Inputs are kept between them.
    memory : int or str
        Bytes for the gradients of the examples, which are computed anew for each step where they do not fit.
    """

    loss: str = "residual"
    steps: int = 150
    rate: float = 0.02
    ridge: float = 1e-4
    batch: int = 256
    start: str = "best"
    learned: bool = False
    bounds: tuple[float, float] | None = None
    memory: int | str = "1GB"

    def __post_init__(self) -> None:
        if self.loss not in OBJECTIVES:
            raise InvalidValueError(f"loss= takes {' or '.join(map(repr, OBJECTIVES))}, not {self.loss!r}")
        if self.learned and self.loss != "inducing":
            raise InvalidValueError("learned=True goes with loss='inducing'; a residual depends on no values")
        if self.start != "best":
            checked(self.start)
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidTypeError(f"{name}= takes a positive integer, not {value!r}")
            if value < 1:
                raise InvalidValueError(f"{name}= takes a positive integer, not {value}")
        for name in ("rate", "ridge"):
            if not getattr(self, name) > 0:
                raise InvalidValueError(f"{name}= takes a positive number, not {getattr(self, name)}")

    def __call__(self, problem: Problem) -> Points:
        """New points, `problem.count` of each class.

        A step computes the O gradients of each point and differentiates through them; a look computes them once more
        for each batch.

        Raises
        ------
        UnsupportedModeError
            The adapter does not differentiate through kernels, as that for NumPy.
        NonDifferentiableError
            Inputs are integers.
        """
        xp = problem.xp
        check_movable(problem)
        chosen = started(problem, self.start)
        run = Run(problem, self, chosen)
        arrays: Arrays = (problem.at(chosen),)
        if self.learned:
            J = problem.linearize(arrays[0], check=False)
            arrays = (*arrays, _values(J, arrays))
        scales = tuple(number(xp.std(a)) for a in (problem.inputs, *arrays[1:]))
        order = run.targets.order(self.steps)
        best, history = descend(
            arrays,
            lambda arrays, i: run.gradient(arrays, run.targets.seen(order[i])),
            run.objective,
            Adam(self.rate, self.steps),
            scales,
            look=LOOK,
            bounds=self.bounds,
            report=progress_of(problem.progress, "steps"),
        )
        looked = 0 if problem.features is not None or self.start == "uniform" else len(problem.labels)
        return Points(
            inputs=best[0],
            labels=problem.labels[chosen],
            targets=best[1] if self.learned else None,
            gradients=run.gradients + run.targets.gradients + looked * run.targets.each,
            passes=run.passes + run.targets.passes + looked * (run.targets.each + 1),
            history=history,
        )


OBJECTIVES: dict[str, Callable[[float], Objective]] = {"residual": Residual, "inducing": Induced}
"""By name, from a ridge."""


class Run:
    """One run of a stage: the objective and its gradient, and what they have cost."""

    def __init__(self, problem: Problem, stage: Tuned, chosen: np.ndarray) -> None:
        self.problem = problem
        self._of = OBJECTIVES[stage.loss](stage.ridge)
        given = (problem.target, problem.before, problem.options.get("backend"))
        self._differentiated = value_and_gradient(self._value, *given)
        every = np.arange(len(problem.labels))
        others = np.setdiff1d(every, chosen)  # the start is perfect on its own points, which it would cling to
        self.targets = Targets(problem, others if len(others) else every, stage.batch, byte_count(stage.memory))
        self._compiled = getattr(self.targets.J, "compile", lambda function: function)
        self.gradients = self.passes = 0

    def gradient(self, arrays: Arrays, seen: Seen) -> Arrays:
        """Of the objective on one batch."""
        self._count(arrays, 3)  # differentiating through a pass counts as two
        found: Arrays = self._differentiated(arrays, seen)[1]
        return found

    def objective(self, arrays: Arrays) -> float:
        """On all batches."""
        self._count(arrays, 1)
        own = self._compiled(self._own)(arrays)
        score = self._compiled(self._score)
        return float(np.mean([number(score(own, seen)) for seen in self.targets.all()]))

    def _value(self, arrays: Arrays, seen: Seen) -> Array:
        return self._score(self._own(arrays, differentiable=True), seen)

    def _own(self, arrays: Arrays, differentiable: bool = False) -> tuple[Gradients, Array]:
        """The gradients of points, and what the points are said to have as outputs."""
        J = self.problem.linearize(arrays[0], check=False, differentiable=differentiable)
        return gradients(J), _values(J, arrays)

    def _score(self, own: tuple[Gradients, Array], seen: Seen) -> Array:
        return self._of(self.targets.J, *own, seen)

    def _count(self, arrays: Arrays, times: int) -> None:
        points = int(arrays[0].shape[0])
        self.gradients += self.targets.each * points
        self.passes += times * (self.targets.each + 1) * points


def started(problem: Problem, method: str) -> np.ndarray:
    """Which examples to start from: by a method, or "best" by the one that leaves least of the kernels of classes."""
    kernel = cache(problem.mean_kernel)

    def chosen(method: str) -> np.ndarray:
        return select_by(kernel, problem.count, problem.labels, problem.classes, method, problem.seed)

    if method != "best":
        return chosen(method)
    kernels = [kernel(label) for label in range(problem.classes)]
    members = [np.flatnonzero(problem.labels == label) for label in range(problem.classes)]

    def left(indices: np.ndarray) -> float:
        parts = np.split(indices, problem.classes)
        return sum(left_by(K, np.searchsorted(own, part)) for K, own, part in zip(kernels, members, parts, strict=True))

    return min(map(chosen, CHOICES), key=left)


def _values(J: Linearization, arrays: Arrays) -> Array:
    """What the points are said to have as outputs (m, O): learned values, or the model's own."""
    return arrays[1] if len(arrays) > 1 else J.xp.reshape(J.outputs, (J.outputs.shape[0], -1))
