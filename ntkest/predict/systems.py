"""A kernel and targets as one linear system, whichever of the two forms the kernel has.

For N examples of O outputs, a kernel (N, N) stands for K̂ ⊗ I_O: the outputs share it, and (K̂ ⊗ I)⁻¹ vec(Y) is K̂⁻¹ Y,
one system with O right-hand sides. The full kernel (N·O, N·O) has one right-hand side, vec(Y). Both are m unknowns a
column, in N blocks of b: b = 1 with O columns, or b = O with one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import (
    Array,
    DeviceMismatchError,
    InvalidTypeError,
    InvalidValueError,
    NonDifferentiableError,
    NonFiniteError,
    ShapeError,
    accumulator,
    beside,
    device,
    is_concrete,
    number,
    scalar_dtype,
)

ASYMMETRY = 1e-3
"""Relative difference between K and Kᵀ beyond which K is no kernel: rounding in half precision is below."""


@dataclass(frozen=True)
class System:
    """K α = y, and how its numbers are put back into the shape of the targets."""

    values: Array
    """y (m, c), in float64 where the device has it."""
    shape: tuple[int, ...]
    """Of the targets: N, then the outputs of an example."""
    block: int
    """b, rows of K an example."""
    dtype: Any
    """Of results: the kernel's own, at least float32."""

    @property
    def xp(self) -> ModuleType:
        """The namespace."""
        return array_api_compat.array_namespace(self.values)  # type: ignore[no-any-return]

    @property
    def count(self) -> int:
        """N."""
        return self.shape[0]

    def rows(self, values: Array) -> Array:
        """Values of the targets' shape as (m, c)."""
        return self.xp.reshape(self.wide(values), (-1, self.values.shape[1]))

    def wide(self, array: Array) -> Array:
        """In the dtype in which systems are solved."""
        return self.xp.astype(array, self.values.dtype, copy=False)

    def arranged(self, rows: Array) -> Array:
        """(m', c) as N' examples in the shape of the targets, in the kernel's dtype."""
        shaped = self.xp.reshape(rows, (-1, *self.shape[1:]))
        return self.xp.astype(shaped, self.dtype, copy=False)

    def crossed(self, cross: Any) -> Array:
        """A kernel (m', m) between other examples and these, wide."""
        self.check_like(cross, "the kernel between other examples and these")
        rows = cross.shape[0] if len(cross.shape) == 2 else 0
        m = self.count * self.block
        if len(cross.shape) != 2 or cross.shape[1] != m or rows % self.block:
            raise ShapeError(
                f"the kernel between other examples and these has shape (N'·{self.block}, {m}), as ntkest.ntk(J_other, "
                f"J) gives it; got {tuple(cross.shape)}"
            )
        return self.wide(cross)

    def placed(self, values: Any, count: int | None = None) -> Array:
        """Values of `count` examples (None: however many) in the shape of the targets, checked, as (m', c)."""
        self.check_like(values, "values")
        wanted = (values.shape[0] if count is None and values.shape else count, *self.shape[1:])
        if tuple(values.shape) != wanted:
            raise ShapeError(f"values of shape {wanted} are wanted, one set of outputs an example, not {values.shape}")
        return self.rows(values)

    def check_like(self, array: Any, what: str) -> None:
        """Refuse what is no array, or one of another namespace or device."""
        check_beside(array, self.values, what)


def as_system(K: Any, targets: Any) -> tuple[System, Array]:
    """The system of a kernel with targets, and the kernel wide.

    Parameters
    ----------
    K : array (N, N) or (N·O, N·O), O fastest
    targets : array (N,) or (N, …) with O numbers an example, or integer labels (N,)
        Labels stand for one-hot rows less 1/O; O is what the full kernel has rows for, else one more than the largest.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError
    """
    xp = check_kernel(K)
    system = system_of(xp, K.shape[0], targets, K)
    return system, system.wide(K)


def system_of(xp: ModuleType, rows: int, targets: Any, like: Array) -> System:
    """The system of a kernel of so many rows, in the namespace and dtype of `like`; see `as_system`."""
    y = as_targets(xp, targets, like, rows)
    count, size = y.shape[0], math.prod(y.shape[1:])
    if rows not in (count, count * size):
        raise ShapeError(
            f"targets of shape {tuple(y.shape)} go with a kernel of {count} rows, or of {count * size} with all "
            f"outputs; this one has {rows}"
        )
    values = xp.reshape(xp.astype(y, accumulator(xp, like)), (rows, count * size // rows))
    return System(values, tuple(y.shape), rows // count, scalar_dtype(xp, like))


def with_values(system: System, values: Array) -> System:
    """The same system for other right-hand sides (m, c)."""
    return replace(system, values=values)


def check_kernel(K: Any) -> ModuleType:
    """The namespace of K, which is refused if it is no kernel: not square, real, finite and symmetric."""
    if not array_api_compat.is_array_api_obj(K):
        raise InvalidTypeError(f"a kernel is an array, as ntkest.ntk and ntkest.pntk give it, not {type(K).__name__}")
    xp: ModuleType = array_api_compat.array_namespace(K)
    if not xp.isdtype(K.dtype, "real floating"):
        raise NonDifferentiableError(f"a kernel must be real floating point, not {K.dtype}")
    if len(K.shape) != 2 or K.shape[0] != K.shape[1] or 0 in K.shape:
        raise ShapeError(f"a kernel is square, (N, N) or (N·O, N·O); got {tuple(K.shape)}")
    largest = xp.max(xp.abs(K))
    if is_concrete(largest):
        peak, gap = number(largest), number(xp.max(xp.abs(K - K.T)))
        if not math.isfinite(peak):
            raise NonFiniteError("the kernel holds NaN or infinity")
        if gap > ASYMMETRY * peak:
            raise InvalidValueError(
                f"the kernel is not symmetric: its entries reach {peak:.3g} and differ from its transpose by up to "
                f"{gap:.3g}; a kernel of examples with themselves is wanted here"
            )
    return xp


def check_beside(array: Any, like: Array, what: str) -> None:
    """Refuse what is no array, or is in another namespace or on another device than `like`."""
    if not array_api_compat.is_array_api_obj(array):
        raise InvalidTypeError(f"{what} must be an array, not {type(array).__name__}")
    if array_api_compat.array_namespace(array) is not array_api_compat.array_namespace(like):
        raise DeviceMismatchError(
            f"{what}: {type(array).__module__}.{type(array).__name__} does not go with "
            f"{type(like).__module__}.{type(like).__name__}; convert one of them"
        )
    here, there = device(like), device(array)
    if here is not None and there is not None and here != there:
        raise DeviceMismatchError(f"{what} on {there}, but the kernel is on {here}; move them together")


def checked_ridge(ridge: Any, positive: bool = False) -> float:
    """A ridge that is given as a number."""
    wanted = f"'loo' or a number that is {'positive' if positive else 'not negative'}"
    if isinstance(ridge, bool) or not isinstance(ridge, int | float | np.floating | np.integer):
        raise InvalidTypeError(f"ridge= takes {wanted}, not {ridge!r}")
    if not 0 <= ridge < math.inf or (positive and ridge == 0):
        raise InvalidValueError(f"ridge= takes {wanted}, not {ridge!r}")
    return float(ridge)


def as_targets(xp: ModuleType, targets: Any, like: Array, rows: int) -> Array:
    """Targets as numbers beside `like`, labels as one-hot rows less 1/O; for a kernel of so many rows."""
    if isinstance(targets, list | tuple):
        host = np.asarray(targets)
        if host.dtype.kind not in "biuf":
            raise InvalidTypeError(f"targets must be numbers or labels, not {host.dtype}")
        targets = beside(xp, host, like, xp.int32 if host.dtype.kind in "biu" else accumulator(xp, like))
    check_beside(targets, like, "targets")
    if 0 in targets.shape or len(targets.shape) == 0:
        raise ShapeError(f"targets have one entry or one row an example; got shape {tuple(targets.shape)}")
    if xp.isdtype(targets.dtype, ("integral", "bool")):
        return _one_hot(xp, targets, like, rows)
    if not xp.isdtype(targets.dtype, "real floating"):
        raise NonDifferentiableError(f"targets must be real numbers or labels, not {targets.dtype}")
    largest = xp.max(xp.abs(targets))
    if is_concrete(largest) and not math.isfinite(number(largest)):
        raise NonFiniteError("the targets hold NaN or infinity")
    return targets


def _one_hot(xp: ModuleType, labels: Array, like: Array, rows: int) -> Array:
    """The full kernel knows how many classes there are; else they are one more than the largest label."""
    if len(labels.shape) != 1:
        raise ShapeError(f"integer labels have shape (N,), not {tuple(labels.shape)}; for numbers use a floating dtype")
    labels = xp.astype(labels, xp.int32)
    low, high = int(number(xp.min(labels), "the least label")), int(number(xp.max(labels), "the largest label"))
    per_example = rows // labels.shape[0]
    count = per_example if per_example > 1 else high + 1
    if low < 0 or high >= count:
        raise InvalidValueError(f"labels run from {low} to {high}, but there are {count} outputs")
    hot = labels[:, None] == beside(xp, np.arange(count), labels)
    return xp.astype(hot, accumulator(xp, like)) - 1.0 / count
