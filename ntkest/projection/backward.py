"""Features by reverse mode: gradients of some examples at a time, projected and dropped.

Gradients of single examples are had in one of three ways: of a range of them; of all, in the adapter's own loop, which
projects them there; or, of a model that has neither, by a reverse pass over the whole batch for each output of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ..kernels.contraction import Block
from ..kernels.images import Images, Range, item_bytes, outputs_each
from ..linearization import Array, Blocks, beside, checked_examples
from .blocks import Projection


class Backward(Protocol):
    """The gradients of examples, of O outputs each."""

    passes: float
    """Reverse passes over the whole batch that all of them take."""

    def bytes_each(self, project: Projection) -> int:
        """Of one example's gradients, and of what its features take on their way."""
        ...

    def features(self, project: Projection, ranges: Sequence[Range]) -> Iterator[Array]:
        """(n, O, dim) of ascending ranges of examples."""
        ...


def backward(J: Any) -> Backward | None:
    """The best way that J has; None if it has no reverse mode."""
    if "vjp" not in J.modes:
        return None
    if getattr(J, "map_example_vjp", None) is None:
        return EveryOutput(J)
    return InRanges(J) if hasattr(J, "sweep_uses") or hasattr(J, "uses") else Within(J)


class InRanges:
    """By ranges of examples, in factors where layers give them so. A stream is read once for all ranges."""

    def __init__(self, J: Any) -> None:
        self.J, self.passes = J, float(outputs_each(J))
        self._images = Images(J, np.eye(outputs_each(J)))
        self.sample: tuple[Block, ...] = next(iter(self._images.sweep([(0, 1)])))
        """The gradients of the first example, which tell the others' shapes."""

    def bytes_each(self, project: Projection) -> int:
        """See `Backward.bytes_each`."""
        sides = [side for block in self.sample for side in (block if isinstance(block, tuple) else (block,))]
        gradients = sum(math.prod(side.shape) * item_bytes(self.J.xp, side) for side in sides)
        return int(gradients) + int(self.passes) * project.held(self.sample) * project.item

    def features(self, project: Projection, ranges: Sequence[Range]) -> Iterator[Array]:
        """See `Backward.features`."""
        sweep = self._images.sweep(ranges)
        for _ in ranges:
            yield project.xp.permute_dims(project.features(next(sweep)), (1, 0, 2))  # and no gradients are kept


class Within:
    """In the adapter's own loop over examples. Features of all examples are there at once."""

    def __init__(self, J: Any) -> None:
        self.J, self.passes = J, float(outputs_each(J))

    def bytes_each(self, project: Projection) -> int:
        """See `Backward.bytes_each`."""
        return int(self.passes) * (sum(project.sizes) + project.held()) * project.item

    def features(self, project: Projection, ranges: Sequence[Range]) -> Iterator[Array]:
        """See `Backward.features`."""
        images = Images(self.J, np.eye(int(self.passes)))
        pairs = int(self.passes) * max(stop - start for start, stop in ranges)
        whole = self.J.map_example_vjp(project, images.omega(), chunk=pairs)
        for start, stop in ranges:
            yield project.xp.permute_dims(whole[:, start:stop, :], (1, 0, 2))


class EveryOutput:
    """By a reverse pass over the whole batch for each output of each example."""

    def __init__(self, J: Any) -> None:
        self.J, self.passes = J, float(math.prod(J.outputs.shape))
        self._axis, self._count = checked_examples(J.examples)

    def bytes_each(self, project: Projection) -> int:
        """See `Backward.bytes_each`."""
        rows = outputs_each(self.J)
        return rows * (sum(project.sizes) + int(self.passes) + project.held()) * project.item

    def features(self, project: Projection, ranges: Sequence[Range]) -> Iterator[Array]:
        """See `Backward.features`."""
        xp, shape = project.xp, tuple(self.J.outputs.shape)
        places = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), self._axis, 0).reshape(self._count, -1)
        for start, stop in ranges:
            own = places[start:stop]
            units = np.zeros((own.size, math.prod(shape)), np.float32)
            units[np.arange(own.size), own.ravel()] = 1.0
            blocks: Blocks = self.J.vjp(beside(xp, units, self.J.outputs))
            found = project(tuple(xp.astype(block, project.dtype, copy=False) for block in blocks))
            yield xp.reshape(found, (*own.shape, project.matrix.dim))
