"""Which way to the features is the cheaper, and how much of it at a time.

Costs are counted in multiplications, the same on every machine, so that a call always goes the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..kernels.images import item_bytes, outputs_each
from ..linearization import InvalidValueError, UnsupportedModeError, scalar_dtype
from ..memory import size_text
from .backward import Backward, InRanges, backward
from .blocks import Projection
from .forward import Forward
from .matrices import GROUP, Matrix
from .sketches import TILE
from .streams import Range

REUSED = 16
"""How often a pass is taken to use a parameter whose gradients come in rows, which do not tell."""


@dataclass(frozen=True)
class Route:
    """How features (N, O, dim) are made: by examples (axis 0), or by columns (axis 2)."""

    project: Projection
    source: Backward | Forward
    shape: tuple[int, int, int]
    step: int
    """Examples or columns at a time."""

    @property
    def axis(self) -> int:
        """Along which axis features come piece by piece."""
        return 2 if isinstance(self.source, Forward) else 0

    def ranges(self) -> list[Range]:
        """The pieces."""
        count = self.shape[self.axis]
        return [(start, min(start + self.step, count)) for start in range(0, count, self.step)]


def routed(J: Any, matrix: Matrix, memory: int) -> Route:
    """The cheaper way that J has, in pieces that fit the budget.

    Raises
    ------
    InvalidValueError, UnsupportedModeError
    """
    sizes = tuple(math.prod(param.shape) for param in J.params)
    dtype = scalar_dtype(J.xp, J.outputs)
    item = item_bytes(J.xp, J.xp.empty((0,), dtype=dtype))
    tile = min(TILE, max(GROUP, memory // (16 * item)))
    project = Projection(J.xp, matrix, sizes, dtype, tile)
    each = outputs_each(J)
    shape = math.prod(J.outputs.shape) // each, each, matrix.dim
    source = _source(J, project)
    if isinstance(source, Forward):
        most, need = J.chunk_size("jvp", matrix.dim), source.numbers_each(project) * item
    else:
        most, need = shape[0], source.bytes_each(project)
    step = min(most, 3 * memory // (4 * need))
    if step < 1:
        what = "a column of Q" if isinstance(source, Forward) else "the gradients of an example"
        raise InvalidValueError(
            f"memory={memory} bytes do not hold {what}; give memory={size_text(1.02 * (4 * need + 2) / 3)!r} or more"
        )
    return Route(project, source, shape, step)


def _source(J: Any, project: Projection) -> Backward | Forward:
    """By the modes that there are, and if both are, by their costs."""
    reverse = backward(J)
    if "jvp" not in J.modes:
        if reverse is None:
            raise UnsupportedModeError("features need forward or reverse mode, and this linearization has neither")
        return reverse
    if reverse is None or forward_multiplications(J, project, reverse) < backward_multiplications(J, project, reverse):
        return Forward(J)
    return reverse


def forward_multiplications(J: Any, project: Projection, reverse: Backward) -> float:
    """Of a pass for each column."""
    return float(J.passes_per_jvp) * project.matrix.dim * _pass(J, project, reverse)


def backward_multiplications(J: Any, project: Projection, reverse: Backward) -> float:
    """Of reverse passes, and of what is done to the gradients that they give."""
    if isinstance(reverse, InRanges):
        products = float(J.examples[1]) * project.multiplications(reverse.sample)
    else:
        products = project.multiplications_of_rows(math.prod(J.outputs.shape))
    return products + reverse.passes * _pass(J, project, reverse)


def _pass(J: Any, project: Projection, reverse: Backward) -> float:
    """Of a JVP or VJP of the batch: two products for each use of a parameter."""
    if not isinstance(reverse, InRanges):
        return float(2 * J.examples[1] * REUSED * sum(project.sizes))
    uses = (block[1].shape[2] if isinstance(block, tuple) else REUSED for block in reverse.sample)
    return float(2 * J.examples[1] * sum(count * size for count, size in zip(uses, project.sizes, strict=True)))
