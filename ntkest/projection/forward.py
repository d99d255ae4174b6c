"""Features by forward mode: a column of Q is a tangent, and J maps it to that feature of all outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..kernels.images import outputs_each
from ..linearization import Array, beside, checked_examples, identity
from ..probes import probe_exponent
from ..threads import Range
from .blocks import Projection

ROWS = 2**15
"""Rows of Q that are made together and laid on their side."""


class Forward:
    """The columns of Q, some at a time."""

    def __init__(self, J: Any) -> None:
        self.J = J
        self.axis, self.count = checked_examples(J.examples)

    def bytes_each(self, project: Projection) -> int:
        """Of one column: the tangent on the host and beside J, and images of it."""
        return 2 * (sum(project.sizes) + int(math.prod(self.J.outputs.shape))) * project.item

    def features(self, project: Projection, ranges: Sequence[Range]) -> Iterator[Array]:
        """(N, O, c) of ranges of columns."""
        J, xp = self.J, project.xp
        exponent = probe_exponent(J)
        scale = math.ldexp(project.matrix.scale, exponent)
        for columns in ranges:
            images = J.map_jvp(identity, self._tangents(project, columns, math.ldexp(1.0, -exponent)))
            found = xp.astype(images, project.dtype, copy=False) * scale
            found = xp.reshape(found, (columns[1] - columns[0], *J.outputs.shape))
            found = xp.reshape(xp.moveaxis(found, self.axis + 1, 1), (-1, self.count, outputs_each(J)))
            yield xp.permute_dims(found, (1, 2, 0))

    def _tangents(self, project: Projection, columns: Range, scale: float) -> tuple[Array, ...]:
        """Blocks (c, P_l), multiplied by `scale`."""
        blocks = []
        for index, (size, param) in enumerate(zip(project.sizes, self.J.params, strict=True)):
            rows = np.empty((columns[1] - columns[0], size), np.float32)
            for start in range(0, size, ROWS):
                stop = min(start + ROWS, size)
                np.multiply(project.matrix.tile(index, (start, stop), columns).T, scale, out=rows[:, start:stop])
            blocks.append(beside(project.xp, rows, param))
        return tuple(blocks)
