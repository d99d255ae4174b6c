"""Which outputs belong together: axes by number or name, the blocks that they cut K into, and sums over blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, Linearization, ShapeError, accumulator

EXAMPLE = "example"
"""The name that the axis of the examples has without ``axes=``."""


@dataclass(frozen=True)
class Layout:
    """The M outputs, of a shape, as blocks: one block for each index along the axes that are kept."""

    shape: tuple[int, ...]
    """Shape of the outputs."""
    kept: tuple[int, ...]
    """Axes that index the blocks, in the order of the result."""
    names: tuple[str | None, ...]
    """For each kept axis its name, or None."""

    @property
    def result_shape(self) -> tuple[int, ...]:
        """One entry a block."""
        return tuple(self.shape[axis] for axis in self.kept)

    @property
    def count(self) -> int:
        """The number n of blocks."""
        return math.prod(self.result_shape)

    @property
    def block(self) -> int:
        """The number of outputs in a block."""
        return math.prod(self.shape) // self.count

    def owners(self) -> np.ndarray:
        """(M,): for each output the number of its block."""
        index = np.zeros((1,) * len(self.shape), dtype=np.int32)
        for axis in self.kept:
            place = np.arange(self.shape[axis], dtype=np.int32)
            index = index * self.shape[axis] + np.expand_dims(
                place, tuple(other for other in range(len(self.shape)) if other != axis)
            )
        return np.broadcast_to(index, self.shape).reshape(-1)

    def sums(self, xp: ModuleType, rows: Array) -> Array:
        """(c, M) to sums over blocks (c, n), added in the accumulator's dtype where there is anything to add."""
        wide = xp.reshape(rows, (rows.shape[0], *self.shape))
        summed = tuple(axis + 1 for axis in range(len(self.shape)) if axis not in self.kept)
        wide = xp.sum(wide, axis=summed, dtype=accumulator(xp, rows)) if summed else wide
        order = sorted(self.kept)
        wide = xp.permute_dims(wide, (0, *(1 + order.index(axis) for axis in self.kept)))
        return xp.reshape(wide, (rows.shape[0], self.count))


def whole_layout(J: Linearization, axes: Sequence[str] | None = None) -> Layout:
    """Every output on its own."""
    shape = tuple(int(n) for n in J.outputs.shape)
    names = _names(J, shape, axes)
    return Layout(shape, tuple(range(len(shape))), tuple(names.get(axis) for axis in range(len(shape))))


def layout_over(J: Linearization, over: Any, axes: Sequence[str] | None = None) -> Layout:
    """The blocks that `over`, an axis or several by number or name, indexes.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError
        If there is no such axis, an axis is named twice, or "example" is asked where examples are not known.
    """
    shape = tuple(int(n) for n in J.outputs.shape)
    names = _names(J, shape, axes)
    wanted = list(over) if isinstance(over, tuple | list) else [over]
    if not wanted:
        raise InvalidValueError("over= takes at least one axis; over none of them there is ntkest.trace")
    kept = tuple(_axis(shape, names, entry) for entry in wanted)
    if len(set(kept)) < len(kept):
        raise InvalidValueError(f"over={over!r} names an axis of the outputs {shape} twice")
    return Layout(shape, kept, tuple(names.get(axis) for axis in kept))


def _names(J: Linearization, shape: tuple[int, ...], axes: Sequence[str] | None) -> dict[int, str]:
    """Names by axis: those given, else that of the examples where it is known."""
    if axes is None:
        return {} if J.examples is None else {J.examples[0]: EXAMPLE}
    if isinstance(axes, str) or not isinstance(axes, tuple | list) or not all(isinstance(a, str) for a in axes):
        raise InvalidTypeError(f"axes= takes a tuple of names, one an axis of the outputs, not {axes!r}")
    if len(axes) != len(shape):
        raise ShapeError(f"axes={tuple(axes)} has {len(axes)} names, but the outputs {shape} have {len(shape)} axes")
    if len(set(axes)) < len(axes):
        raise InvalidValueError(f"axes={tuple(axes)} has the same name twice")
    names = dict(enumerate(axes))
    if J.examples is not None and EXAMPLE in axes and names[J.examples[0]] != EXAMPLE:
        raise InvalidValueError(
            f"axes={tuple(axes)} calls axis {axes.index(EXAMPLE)} {EXAMPLE!r}, but the examples of this linearization "
            f"run along axis {J.examples[0]}"
        )
    return names


def _axis(shape: tuple[int, ...], names: dict[int, str], entry: Any) -> int:
    if isinstance(entry, str):
        found = [axis for axis, name in names.items() if name == entry]
        if found:
            return found[0]
        if entry == EXAMPLE and not names:
            raise InvalidValueError(
                f"over={EXAMPLE!r} needs to know the axis of the examples; give linearize batch_axis=, or the number "
                "of the axis"
            )
        known = ", ".join(map(repr, names.values())) or "none"
        raise InvalidValueError(
            f"over={entry!r} is no name of an axis; names here: {known}. Give axes=, one name an axis of the outputs "
            f"{shape}, or a number"
        )
    if isinstance(entry, bool) or not isinstance(entry, int | np.integer):
        raise InvalidTypeError(f"over= takes an axis number or name, or a tuple of them, not {entry!r}")
    if not -len(shape) <= entry < len(shape):
        raise InvalidValueError(f"over={entry} is not an axis of the outputs, whose shape is {shape}")
    return int(entry) % len(shape)
