"""Tangent features as arrays: what is refused, and their size as a power of two."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import array_api_compat

from ..linearization import (
    Array,
    InvalidTypeError,
    NonDifferentiableError,
    NonFiniteError,
    ShapeError,
    ZeroKernelError,
    accumulator,
    number,
)


def check_features(features: Any, what: str = "features") -> ModuleType:
    """The namespace of features (m, O, k), which are refused if they are not real, finite and of three axes.

    Raises
    ------
    InvalidTypeError, NonDifferentiableError, NonFiniteError, ShapeError
    """
    if not array_api_compat.is_array_api_obj(features):
        raise InvalidTypeError(f"{what} are an array, as ntkest.project gives them, not {type(features).__name__}")
    xp: ModuleType = array_api_compat.array_namespace(features)
    if not xp.isdtype(features.dtype, "real floating"):
        raise NonDifferentiableError(f"{what} must be real floating point, not {features.dtype}")
    if len(features.shape) != 3 or 0 in features.shape:
        raise ShapeError(f"{what} have shape (examples, outputs, dimensions); got {tuple(features.shape)}")
    if not math.isfinite(largest(xp, features)):
        raise NonFiniteError(f"{what} hold NaN or infinity; look at the model's derivatives, or leave examples out")
    return xp


def largest(xp: ModuleType, features: Array) -> float:
    """The largest absolute value."""
    return max(number(xp.max(features)), -number(xp.min(features)))


def unit(xp: ModuleType, features: Array) -> float:
    """A power of two near the largest entry: divided by it, features have products that float32 holds.

    Raises
    ------
    ZeroKernelError
    """
    size = largest(xp, features)
    if size == 0:
        raise ZeroKernelError("all features are zero, and so are their kernels: nothing can be distilled from them")
    return math.ldexp(1.0, math.frexp(size)[1])


def of_class(xp: ModuleType, features: Array, c: int, scale: float = 1.0) -> Array:
    """Φ_c / scale (m, k), in the dtype in which products are added."""
    return xp.astype(features[:, c, :], accumulator(xp, features)) / scale
