"""What a kernel can be aligned with: another linearization, targets, or labels."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from .estimators import Bound, Counted
from .linearization import (
    Array,
    DeviceMismatchError,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    NonDifferentiableError,
    NonFiniteError,
    ShapeError,
    ZeroKernelError,
    beside,
    device,
    is_concrete,
    number,
    scalar_dtype,
)
from .probes import Centre


def check_same_outputs(J: Linearization, other: Linearization) -> None:
    """Refuse two linearizations whose kernels are not on the same output space."""
    if J.xp is not other.xp:
        raise DeviceMismatchError(
            f"the linearizations come from different frameworks: {J.xp.__name__} and {other.xp.__name__}"
        )
    if tuple(J.outputs.shape) != tuple(other.outputs.shape):
        raise ShapeError(
            f"the kernels are on different outputs: {tuple(J.outputs.shape)} and {tuple(other.outputs.shape)}"
        )
    _check_device(J, other.outputs, "the second linearization")


def as_target(kernel: Counted, targets: Any, centre: Centre | None) -> tuple[Array, Array]:
    """Targets as cotangents (1, M) with entries near 1, and their squared norm.

    Accepts an array of the outputs' shape, or integer labels of that shape without the last axis, which become
    one-hot rows minus 1/O.
    """
    J = kernel.J
    xp, shape = J.xp, tuple(J.outputs.shape)
    if isinstance(targets, list | tuple | int | float):
        targets = _from_list(J, targets)
    if not array_api_compat.is_array_api_obj(targets):
        raise InvalidTypeError(f"targets must be an array, labels or a linearization, not {type(targets).__name__}")
    if array_api_compat.array_namespace(targets) is not array_api_compat.array_namespace(J.outputs):
        raise DeviceMismatchError(
            f"targets are {type(targets).__module__}.{type(targets).__name__}, but the outputs are "
            f"{type(J.outputs).__module__}.{type(J.outputs).__name__}; convert them to the model's framework"
        )
    _check_device(J, targets, "targets")
    if xp.isdtype(targets.dtype, ("integral", "bool")) and tuple(targets.shape) != shape:
        targets = _one_hot(kernel, targets)
    if tuple(targets.shape) != shape:
        raise ShapeError(
            f"targets have shape {tuple(targets.shape)}, the outputs {shape}; give targets of that shape, or integer "
            f"labels of shape {shape[:-1]}"
        )
    if xp.isdtype(targets.dtype, "complex floating"):
        raise NonDifferentiableError(f"targets are {targets.dtype}; real numbers are needed")
    prepared = kernel.compile(Bound(_prepared, (xp, J.outputs.dtype, scalar_dtype(xp, J.outputs), centre)))
    y, norm, largest, left = prepared(targets)
    _check_number(largest, "targets")
    if centre is not None and is_concrete(left) and number(left) < 1e-6:
        raise ZeroKernelError("targets are constant, so nothing is left of them when centred")
    return y, norm


def _prepared(
    xp: ModuleType, dtype: Any, wide: Any, centre: Centre | None, targets: Array
) -> tuple[Array, Array, Array, Array]:
    """Targets (1, M) with entries near 1, their squared norm, and the largest entry before and after; array-only."""
    y = xp.astype(targets, wide)
    largest = xp.max(xp.abs(y))
    usable = (largest > 0) & xp.isfinite(largest)  # if not, that is refused from `largest`, without warnings on the way
    y = xp.where(usable, y, xp.zeros_like(y)) / xp.where(usable, largest, xp.ones_like(largest))
    y = xp.reshape(y, (1, math.prod(targets.shape)))
    if centre is not None:
        y = centre(xp, y)
    y = xp.astype(y, dtype)
    return y, xp.sum(xp.astype(y, wide) ** 2), largest, xp.max(xp.abs(y))


def _from_list(J: Linearization, targets: Any) -> Array:
    host = np.asarray(targets)
    if host.dtype.kind not in "biuf":
        raise InvalidTypeError(f"targets must be numbers, not {host.dtype}")
    return beside(J.xp, host, J.outputs, J.outputs.dtype if host.dtype.kind == "f" else J.xp.int32)


def _one_hot(kernel: Counted, labels: Array) -> Array:
    """Labels of the outputs' shape without its last axis to one-hot minus 1/O."""
    J = kernel.J
    xp, shape = J.xp, tuple(J.outputs.shape)
    if tuple(labels.shape) != shape[:-1]:
        raise ShapeError(
            f"integer labels have shape {tuple(labels.shape)}; for outputs {shape} they must have {shape[:-1]}"
        )
    hot, low, high = kernel.compile(Bound(_hot, (xp, shape[-1], scalar_dtype(xp, J.outputs))))(labels)
    if is_concrete(low) and (int(low) < 0 or int(high) >= shape[-1]):
        raise InvalidValueError(f"labels run from {int(low)} to {int(high)}, but there are {shape[-1]} outputs a row")
    return hot


def _hot(xp: ModuleType, classes: int, dtype: Any, labels: Array) -> tuple[Array, Array, Array]:
    """One-hot minus 1/O, and the least and largest label; array-only."""
    hot = labels[..., None] == beside(xp, np.arange(classes), labels)
    return xp.astype(hot, dtype) - 1.0 / classes, xp.min(labels), xp.max(labels)


def _check_device(J: Linearization, array: Array, what: str) -> None:
    here, there = device(J.outputs), device(array)
    if here is not None and there is not None and here != there:
        raise DeviceMismatchError(f"{what} on {there}, but the outputs are on {here}; move them together")


def _check_number(largest: Array, what: str) -> None:
    if not is_concrete(largest):
        return
    value = number(largest)
    if not math.isfinite(value):
        raise NonFiniteError(f"{what} hold NaN or infinity")
    if value == 0:
        raise ZeroKernelError(f"{what} are all zero, so no alignment with them is defined")
