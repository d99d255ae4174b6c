"""What a data stage is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ...kernels import ntk
from ...linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    NonDifferentiableError,
    NonFiniteError,
    ShapeError,
    host,
    is_concrete,
    linearize,
    numbers,
)
from ...predict.pivoted import take_rows


@dataclass(frozen=True)
class Problem:
    """A model at its parameters, and labelled examples that a few points are to stand for; made by `posed`."""

    target: Any
    """The module or function, as `ntkest.linearize` takes it."""
    before: tuple[Any, ...]
    """What goes before the inputs: nothing for a module, the parameters for a function."""
    inputs: Array
    """(N, …)."""
    labels: np.ndarray
    """(N,), integers from 0, on the host."""
    classes: int
    count: int
    """Points a class that are wanted."""
    features: Array | None = None
    """(N, O, k) tangent features with K_c = Φ_cΦ_cᵀ; where there are none, exact kernels are computed."""
    seed: int = 0
    progress: Any = False
    """As `ntkest.progress` has it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of `ntkest.linearize`."""

    @property
    def xp(self) -> ModuleType:
        """The namespace of the inputs."""
        return array_api_compat.array_namespace(self.inputs)  # type: ignore[no-any-return]

    def at(self, indices: np.ndarray) -> Array:
        """Some of the inputs."""
        return take_rows(self.xp, self.inputs, indices)

    def linearize(self, inputs: Array, **options: Any) -> Linearization:
        """The linearization on other inputs, whose examples run along the first axis."""
        given = {**self.options, "batch_axis": 0, **options}
        return linearize(self.target, *self.before, inputs, **given)

    def mean_kernel(self, label: int) -> np.ndarray:
        """K̄ = mean_c K_c among the examples of a class, on the host: from features, or exact for O gradients each."""
        members = np.flatnonzero(self.labels == label)
        if self.features is None:
            return np.asarray(host(ntk(self.linearize(self.at(members)), outputs="trace")), dtype=np.float64)
        return mean_kernel_of(take_rows(array_api_compat.array_namespace(self.features), self.features, members))


@dataclass(frozen=True)
class Points:
    """The points that a data stage chose or made."""

    inputs: Array
    """(m, …), class after class."""
    labels: np.ndarray
    """(m,), integers: the class that each point stands for."""
    indices: np.ndarray | None = None
    """(m,): which of the examples they are; None if they are new."""
    targets: Array | None = None
    """(m, O), where the stage learned what the model is to say there; else its own outputs are meant."""
    weights: np.ndarray | None = None
    """(m,): the share of its class that each point stands for, where the stage knows."""
    gradients: int = 0
    """How many ∇_θ f_c(x) of one output and one example were computed; those behind features that were given not."""
    passes: int = 0
    """Forward and reverse passes of one example in all. Differentiating through a pass counts as two."""
    history: tuple[float, ...] = ()
    """The objective, at the start and each time that all of it was looked at; empty where there is none."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def posed(
    target: Any,
    *args: Any,
    labels: Any,
    count: int,
    features: Any = None,
    classes: int | None = None,
    seed: int = 0,
    progress: Any = False,
    **options: Any,
) -> Problem:
    """A problem, checked: ``posed(module, inputs, …)`` or ``posed(f, params, inputs, …)``.

    Parameters
    ----------
    target, *args
        As for `ntkest.linearize`, with one array of inputs (N, …), whose examples run along the first axis.
    labels : array or sequence (N,)
        Integers from 0.
    count : int
        Points a class.
    features : array (N, O, k), optional
        Tangent features of the inputs.
    classes : int, optional
        How many there are; default: one more than the largest label.
    seed : int
    progress : bool or callable
    **options
        Keywords of `ntkest.linearize`.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, NonFiniteError
    """
    if not args:
        raise InvalidTypeError("a data stage needs inputs: posed(module, inputs, …) or posed(f, params, inputs, …)")
    *before, inputs = args
    if not array_api_compat.is_array_api_obj(inputs) or not inputs.shape:
        raise InvalidTypeError(f"inputs are one array (N, …), not {type(inputs).__name__}")
    known = as_labels(labels, inputs.shape[0])
    if features is not None:
        features = as_features(features)
        if features.shape[0] != inputs.shape[0]:
            raise ShapeError(f"there are {inputs.shape[0]} inputs, but features of {features.shape[0]}")
    found = check_classes(known, count, classes)
    return Problem(target, tuple(before), inputs, known, found, count, features, seed, progress, options)


def check_movable(problem: Problem) -> None:
    """Refuse inputs that no gradient moves."""
    if not problem.xp.isdtype(problem.inputs.dtype, "real floating"):
        raise NonDifferentiableError(
            f"inputs are {problem.inputs.dtype}, and no gradient moves them; select some instead of making new ones"
        )


def as_labels(labels: Any, size: int) -> np.ndarray:
    """Integer labels (N,) on the host."""
    found = numbers(labels) if array_api_compat.is_array_api_obj(labels) else np.asarray(labels, dtype=np.float64)
    if found.shape != (size,):
        raise ShapeError(f"{size} examples have labels of shape ({size},), not {found.shape}")
    if not np.isfinite(found).all() or (found != np.round(found)).any() or (found < 0).any():
        raise InvalidValueError("labels are integers from 0 on, one an example")
    return found.astype(np.int64)


def as_features(features: Any) -> Array:
    """Features (m, O, k), or (m, k) as (m, 1, k), that are finite."""
    if not array_api_compat.is_array_api_obj(features):
        raise InvalidTypeError(f"features are an array (m, O, k), not {type(features).__name__}")
    xp = array_api_compat.array_namespace(features)
    if len(features.shape) == 2:
        features = features[:, None, :]
    if len(features.shape) != 3 or 0 in features.shape:
        raise ShapeError(f"features have shape (m, O, k), or (m, k), and are not empty; got {tuple(features.shape)}")
    finite = xp.all(xp.isfinite(features))
    if is_concrete(finite) and not bool(finite):
        rows = np.flatnonzero(~host(xp.all(xp.isfinite(features), axis=(1, 2))))
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise NonFiniteError(f"features of {len(rows)} examples hold NaN or infinity: {shown}")
    return features


def check_classes(labels: np.ndarray, count: Any, classes: int | None) -> int:
    """How many classes there are, if each has at least `count` examples."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise InvalidTypeError(f"count= takes the number of points a class, not {count!r}")
    if count < 1:
        raise InvalidValueError(f"count= takes a positive number of points a class, not {count}")
    found = int(labels.max()) + 1 if classes is None else classes
    if labels.max() >= found:
        raise InvalidValueError(f"there are {found} classes, but labels run up to {labels.max()}")
    sizes = np.bincount(labels, minlength=found)
    if not sizes.all():
        raise InvalidValueError(
            f"of {found} classes there are no examples of {', '.join(map(str, np.flatnonzero(sizes == 0)[:8]))}; give "
            "some, or number the labels without gaps and set classes="
        )
    if sizes.min() < count:
        raise InvalidValueError(
            f"{count} points a class are wanted, but class {sizes.argmin()} has {sizes.min()} examples"
        )
    return found


def mean_kernel_of(features: Array) -> np.ndarray:
    """K̄ (m, m) of features (m, O, k), on the host."""
    xp: ModuleType = array_api_compat.array_namespace(features)
    flat = xp.reshape(features, (features.shape[0], -1))
    return np.asarray(host(flat @ flat.T) / features.shape[1], dtype=np.float64)
