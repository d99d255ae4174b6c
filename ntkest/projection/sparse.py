"""A sparse random matrix: a few signs in each row, and the rest zeros.

The columns are cut into s parts as equal as can be, and each row has one sign in each part, at a random place. Within
every ⌊dim/s⌋ rows that follow one another the places in a part are all different, a random order of them: no two of
these rows collide, and others do as often as with independent places. The signs are independent, so that inner products
have no bias, and no more variance than with independent places. Since at most one of the rows comes to each place, they
are gathered and never scattered, which array libraries have no common word for.

Reference: Kane and Nelson, "Sparser Johnson-Lindenstrauss transforms", J. ACM 2014 (the block construction).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..threads import Range
from .streams import SPARSE, Stream

NONZEROS = 4
"""Signs in a row, or as many as there are columns."""


@dataclass(frozen=True)
class Sparse:
    """Signs at a few places of each row; the scale is 1 over the root of their number."""

    seed: int
    dim: int

    @property
    def entries(self) -> int:
        """The number s of parts, with one each."""
        return min(NONZEROS, self.dim)

    @property
    def scale(self) -> float:
        """1/√s."""
        return float(self.entries**-0.5)

    @cached_property
    def parts(self) -> list[Range]:
        """The columns of each part."""
        ends = [self.dim * i // self.entries for i in range(self.entries + 1)]
        return list(pairwise(ends))

    @property
    def run(self) -> int:
        """Rows that come to different places of each part."""
        return self.dim // self.entries

    def sources(self, block: int, runs: Range, part: int) -> tuple[np.ndarray, np.ndarray]:
        """For each of some runs and each place of a part the row of the run that comes there, and whether negated.

        Both are (runs, places). A row as large as `run` is none.
        """
        start, stop = self.parts[part]
        each = -(-(self.run + 1) // 4) * 4
        words = Stream(self.seed, SPARSE).words((part, block, 0), (runs[0] * each, runs[1] * each))
        keys = words.reshape(-1, each)[:, : stop - start]
        order = np.argsort(keys, axis=1)
        negated = np.take_along_axis(keys, order, axis=1) & np.uint64(1)
        return order, negated.astype(bool)

    def tile(self, block: int, rows: Range, columns: Range) -> np.ndarray:
        """See `ntkest.projection.matrices.Matrix.tile`."""
        found = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), np.float32)
        runs = rows[0] // self.run, -(-rows[1] // self.run)
        for part, (start, stop) in enumerate(self.parts):
            if start >= columns[1] or stop <= columns[0]:
                continue
            order, negated = self.sources(block, runs, part)
            row = np.where(order < self.run, np.arange(*runs)[:, None] * self.run + order, -1)
            column = np.broadcast_to(np.arange(start, stop), row.shape)
            there = (row >= rows[0]) & (row < rows[1]) & (column >= columns[0]) & (column < columns[1])
            found[row[there] - rows[0], column[there] - columns[0]] = np.where(negated[there], -1.0, 1.0)
        return found
