"""The steps of the pipeline between a model and its gradients: which points there are, and their features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    beside,
    numbers,
    scalar_dtype,
)
from ..predict.pivoted import take_rows
from ..projection import project
from .counting import Counted, Tally
from .points.problem import Points, as_labels, posed
from .points.stages import Identity, Selection, Stage
from .source import Source, logits_of

DIMENSIONS = 4096
"""k where none is given, if the model has as many parameters."""


@dataclass(frozen=True)
class Projection:
    """How gradients become features."""

    dim: int
    kind: str
    seed: int
    memory: int
    progress: Any = False

    def of(self, J: Linearization, tally: Tally, factory: Any = None, **where: Any) -> Array:
        """Features (N, O, k) beside the outputs of J; the gradients that they take are counted.

        With a factory, workers take them, each of every example once. `where` has ``out``, ``force`` and ``client`` of
        `ntkest.project`.
        """
        if factory is not None:
            N, O = logits_of(J).shape  # noqa: E741
            tally.add(N * O, N * (O + 1))
        counted: Any = Counted(J, tally) if factory is None else factory
        keywords = {"kind": self.kind, "seed": self.seed, "memory": self.memory, "progress": self.progress}
        found: Any = project(counted, self.dim, **keywords, **where)
        if not array_api_compat.is_array_api_obj(found):
            found = found[...]  # a store, read whole
        if array_api_compat.array_namespace(found) is J.xp:
            return found
        return beside(J.xp, found, J.outputs, scalar_dtype(J.xp, J.outputs))


def checked_dim(dim: Any, parameters: int) -> int:
    """k; at most P, and by default `DIMENSIONS` or P.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    if dim is None:
        return min(DIMENSIONS, parameters)
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
        raise InvalidTypeError(f"dim= takes a number of dimensions, not {dim!r}")
    if not 1 <= dim <= parameters:
        raise InvalidValueError(
            f"dim={dim}: the gradients of {parameters} parameters are projected to 1 … {parameters} dimensions"
        )
    return int(dim)


def looks_at_features(stage: Stage, source: Source) -> bool:
    """Whether the features of all examples are needed: to choose by, in the end, or to choose from without a model."""
    if isinstance(stage, Selection):
        return stage.method != "uniform" or source.target is None
    return isinstance(stage, Identity)


def points_of(
    stage: Stage,
    source: Source,
    inputs: Any,
    logits: Array,
    labels: Any,
    count: int | None,
    whole: Array | None,
    seed: int,
    progress: Any,
) -> Points:
    """What the data stage chooses or makes.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError
        A class has no example, or fewer than `count`.
    """
    N, O = (int(n) for n in logits.shape)  # noqa: E741
    known = own_classes(logits) if labels is None else as_labels(labels, N)
    if isinstance(stage, Identity):
        if count is not None:
            raise InvalidValueError(f"points={count}: data='identity' takes all examples; name a stage that chooses")
        if labels is not None:
            check_labels(known, O, labels)
        return Points(None if source.target is None else inputs, known, np.arange(N))
    if count is None:
        raise InvalidValueError("points= is needed: how many points a class the data stage is to choose or make")
    check_labels(known, O, labels)
    stand_in = inputs
    if source.target is None:  # examples are chosen by features, and known by their numbers
        xp = array_api_compat.array_namespace(logits)
        stand_in = beside(xp, np.arange(N), logits, xp.int32)
    found = stage(
        posed(
            source.target,
            *source.before,
            stand_in,
            labels=known,
            count=count,
            features=whole,
            classes=O,
            seed=seed,
            progress=progress,
            **source.options,
        )
    )
    return replace(found, inputs=None) if source.target is None else found


def at_points(
    points: Points, source: Source, projection: Projection, tally: Tally, whole: Array | None, logits: Array
) -> tuple[Array, Array]:
    """Features (m, O, k) and targets (m, O) of the points, taken from those of all examples where these are known."""
    xp = array_api_compat.array_namespace(logits)
    if whole is not None and points.indices is not None:
        order = points.indices
        if np.array_equal(order, np.arange(int(logits.shape[0]))):
            return whole, logits
        return take_rows(xp, whole, order), take_rows(xp, logits, order)
    J = source.linearize(points.inputs)
    features = projection.of(J, tally)
    return features, logits_of(J) if points.targets is None else points.targets


def own_classes(logits: Array) -> np.ndarray:
    """The largest output of each example (N,), on the host."""
    xp = array_api_compat.array_namespace(logits)
    return numbers(xp.argmax(logits, axis=1)).astype(np.int64)


def check_labels(known: np.ndarray, outputs: int, given: Any) -> None:
    """Refuse labels of which some class has no example.

    Raises
    ------
    InvalidValueError
    """
    if known.max() >= outputs:
        raise InvalidValueError(f"labels run up to {known.max()}, but the model has {outputs} outputs, one a class")
    missing = np.setdiff1d(np.arange(outputs), known)
    if len(missing):
        whose = "labels= has" if given is not None else "by the network's own classes there is"
        raise InvalidValueError(
            f"{whose} no example of class {', '.join(map(str, missing[:8]))} out of {outputs}: every class is "
            "distilled from its own examples; give some of each" + ("" if given is not None else ", or labels=")
        )


def checked_logits(logits: Array) -> Array:
    """Outputs (N, O), refused if there is nothing to imitate.

    Raises
    ------
    InvalidValueError
    """
    xp = array_api_compat.array_namespace(logits)
    if not bool(xp.any(logits != 0)):
        raise InvalidValueError(
            "all outputs are zero, as those of an explicit Jacobian are: there is nothing to imitate; give features "
            "and outputs to ntkest.distill_features"
        )
    return logits
