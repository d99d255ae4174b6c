"""Gradients of ranges of examples, in factors where layers give them so, from one linearization or a stream of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..linearization import (
    Array,
    InvalidTypeError,
    Linearization,
    UnsupportedModeError,
    beside,
    checked_examples,
    identity,
)
from .contraction import Block, examples_between

Range = tuple[int, int]
"""Examples start … stop-1."""

_EXAMPLE_BYTES: WeakKeyDictionary[Any, dict[int, int]] = WeakKeyDictionary()
"""What `Images.example_bytes` found of linearizations, by the number of cotangents: it is as dear as a small kernel."""


class Images:
    """The gradients of the examples of J, of a few cotangents (k, O) that are the same for each."""

    def __init__(self, J: Linearization, cotangents: np.ndarray) -> None:
        if getattr(J, "map_example_vjp", None) is None or "vjp" not in J.modes:
            raise UnsupportedModeError(
                "the kernel between examples needs gradients of single examples, and this has none"
            )
        self.J, self.cotangents = J, cotangents
        self.axis, self.count = checked_examples(J.examples)
        self._whole: tuple[Block, ...] | None = None

    def sweep(self, ranges: Sequence[Range]) -> Iterator[tuple[Block, ...]]:
        """The blocks of one range after the other; ranges ascend, so that a stream is read once. k passes over them."""
        J: Any = self.J
        if not ranges:
            return
        if hasattr(J, "sweep_uses"):
            yield from J.sweep_uses(self.omega(), ranges)
        elif hasattr(J, "uses"):
            omega = self.omega()
            for start, stop in ranges:
                yield J.uses(omega, start, stop)
        else:
            if self._whole is None:
                self._whole = J.map_example_vjp(identity, self.omega())
            for start, stop in ranges:
                yield tuple(examples_between(block, start, stop) for block in self._whole)

    def omega(self) -> Array:
        """The cotangents (k, M) of all examples."""
        J, xp, k = self.J, self.J.xp, len(self.cotangents)
        shape = tuple(J.outputs.shape)
        own = (*shape[: self.axis], 1, *shape[self.axis + 1 :])
        cotangents = xp.reshape(beside(xp, self.cotangents, J.outputs, J.outputs.dtype), (k, *own))
        return xp.reshape(xp.broadcast_to(cotangents, (k, *shape)), (k, -1))

    def most_bytes(self) -> int:
        """What the gradients of one example take at most: rows of all parameters. At no pass."""
        rows = sum(int(math.prod(p.shape)) * item_bytes(self.J.xp, p) for p in self.J.params)
        return max(1, len(self.cotangents) * rows)

    def example_bytes(self) -> int:
        """What the gradients of one example take. Costs k passes over one example, once for a linearization and k."""
        known = _remembered(self.J)
        if len(self.cotangents) not in known:
            blocks = next(iter(self.sweep([(0, 1)])))
            sides = [side for block in blocks for side in (block if isinstance(block, tuple) else (block,))]
            size = sum(math.prod(side.shape) * item_bytes(self.J.xp, side) for side in sides)
            known[len(self.cotangents)] = size
        return known[len(self.cotangents)]


def _remembered(J: Linearization) -> dict[int, int]:
    try:
        return _EXAMPLE_BYTES.setdefault(J, {})
    except TypeError:  # no weak references to it, or no hash
        return {}


def outputs_each(J: Linearization) -> int:
    """O, the number of outputs of an example.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        It is no linearization, or its examples are not known to be independent.
    """
    if not hasattr(J, "examples"):
        raise InvalidTypeError(f"a linearization is wanted (see ntkest.linearize), not {type(J).__name__}")
    _, count = checked_examples(J.examples)
    return int(math.prod(J.outputs.shape)) // count


def item_bytes(xp: Any, array: Array) -> int:
    """Bytes of a number in `array`."""
    info = xp.finfo if xp.isdtype(array.dtype, "real floating") else xp.iinfo
    return int(info(array.dtype).bits) // 8
