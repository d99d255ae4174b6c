"""Which axis of the outputs, if any, runs over examples that do not interact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from .errors import InteractingExamplesError, InvalidTypeError, InvalidValueError
from .precision import number
from .protocol import Array


def find_examples(
    xp: ModuleType,
    call: Callable[[list[Array]], Array],
    arguments: Sequence[Array],
    outputs: Array,
    batch_axis: int | str | None,
    epsilon: float,
    check: bool = True,
) -> tuple[int, int] | None:
    """(axis, N) of `outputs` if its slices along `axis` depend on the same slices of `arguments` only.

    With ``batch_axis="auto"`` axes 0 and 1 are tried, every array argument must have N entries along the
    axis, and the outputs of the first, middle and last example alone must equal those within the batch, to
    rounding. (A recurrent net on (T, N, H) passes this for the first time step, and fails for the last.) Any
    doubt gives None. An explicit axis is checked in the same way, on the arguments that have N entries along it,
    and raises `InteractingExamplesError` where "auto" gives None.
    """
    if batch_axis is None:
        return None
    shape = tuple(outputs.shape)
    if batch_axis == "auto":
        for axis in range(min(2, len(shape))):
            fits = arguments and all(len(a.shape) > axis and a.shape[axis] == shape[axis] for a in arguments)
            if fits and shape[axis] > 1 and check and _independent(xp, call, arguments, outputs, axis, epsilon) is None:
                return axis, shape[axis]
        return None
    if isinstance(batch_axis, bool) or not isinstance(batch_axis, int):
        raise InvalidTypeError(f"batch_axis= takes 'auto', None or an axis number, not {batch_axis!r}")
    if not -len(shape) <= batch_axis < len(shape):
        raise InvalidValueError(f"batch_axis={batch_axis} is not an axis of the outputs, whose shape is {shape}")
    axis = batch_axis % len(shape)
    if check and shape[axis] > 1:
        trouble = _independent(xp, call, arguments, outputs, axis, epsilon)
        if trouble is not None:
            raise InteractingExamplesError(
                f"along batch_axis={batch_axis} the examples are not independent: {trouble}. Train-mode batch norm, "
                "in-batch attention and a time axis do this; give the right axis, or batch_axis=None"
            )
    return axis, shape[axis]


def _independent(
    xp: ModuleType, call: Callable[[list[Any]], Any], arguments: Sequence[Any], outputs: Any, axis: int, epsilon: float
) -> str | None:
    """None if single examples give what they give within the batch, else what was seen."""
    count = outputs.shape[axis]
    for index in (0, count // 2, count - 1):
        alone = [_slice(a, axis, index) if len(a.shape) > axis and a.shape[axis] == count else a for a in arguments]
        within = _slice(outputs, axis, index)
        try:
            found = call(alone)
        except Exception as error:  # a model may refuse a single example in any way
            return f"the model cannot be called on example {index} alone ({type(error).__name__}: {error})"
        if tuple(found.shape) != tuple(within.shape):
            return f"example {index} alone gives the shape {tuple(found.shape)}, within the batch {tuple(within.shape)}"
        scale = number(xp.max(xp.abs(within)))
        gap = number(xp.max(xp.abs(found - within)))
        if not gap <= math.sqrt(epsilon) * scale:
            return f"the outputs of example {index} alone differ by {gap:.2g} from those within the batch"
    return None


def _slice(array: Any, axis: int, index: int) -> Any:
    return array[(slice(None),) * axis + (slice(index, index + 1), ...)]
