"""Sums of Qᵀφ over parts of the parameters, for rows φ that come some columns at a time.

With a dense Q each part is a product with tiles of Q, which are made for it and dropped. With a sparse one every place
of the result takes at most one number of each run of rows of Q: these are gathered from φ, lying on its side, and added
up.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..linearization import Array, beside
from ..threads import Range
from .matrices import GROUP, Matrix
from .sparse import Sparse

STRIP = 512
"""Columns of Q in a tile."""

TILE = 2**21
"""Numbers of a tile: wide enough for fast products, small enough for the cache."""

RUNS = 4
"""Runs of a sparse matrix that are gathered together at least, since those at both ends may be wanted in part."""

GATHERED = 2**10
"""Rows of a sparse matrix to be gathered together at least."""


class Sketch(Protocol):
    """Features in the making, of m rows."""

    @property
    def width(self) -> int:
        """How many columns of the rows should come at a time."""
        ...

    def held(self, size: int) -> int:
        """Numbers for each row while columns are added, if no block has more than `size`."""
        ...

    def add(self, piece: Array, block: int, start: int) -> None:
        """Rows (m, r) of the numbers start … start + r - 1 of a parameter block."""
        ...

    def result(self) -> Array:
        """The features scale · Qᵀφ, (m, dim)."""
        ...


def sketch(xp: Any, matrix: Matrix, dtype: Any, tile: int = TILE) -> Sketch:
    """Nothing yet, to be added up in `dtype`, with tiles of at most so many numbers."""
    return SparseSketch(xp, matrix, dtype) if isinstance(matrix, Sparse) else DenseSketch(xp, matrix, dtype, tile)


def strips(columns: Range, width: int) -> list[Range]:
    """Columns of Q in ranges of whole groups, which begin with one."""
    width = max(GROUP, width // GROUP * GROUP)
    return [(start, min(start + width, columns[1])) for start in range(*columns, width)]


class DenseSketch:
    """With any matrix, tile by tile."""

    def __init__(self, xp: Any, matrix: Matrix, dtype: Any, tile: int = TILE) -> None:
        self.xp, self.matrix, self.dtype, self.tile = xp, matrix, dtype, tile
        self.strips = strips((0, matrix.dim), min(STRIP, tile))
        self._totals: list[Any] = [None] * len(self.strips)

    @property
    def width(self) -> int:
        """See `Sketch.width`."""
        return max(1, self.tile // self.strips[0][1])

    def held(self, size: int) -> int:
        """See `Sketch.held`: these columns, and their share in a strip."""
        return min(self.width, size) + self.strips[0][1]

    def add(self, piece: Array, block: int, start: int) -> None:
        """See `Sketch.add`."""
        rows = start, start + int(piece.shape[1])
        piece = self.cast(piece)
        for strip, columns in enumerate(self.strips):
            self.put(strip, piece @ self.part(block, rows, columns, piece))

    def part(self, block: int, rows: Range, columns: Range, like: Array) -> Array:
        """A tile of Q beside an array."""
        return beside(self.xp, self.matrix.tile(block, rows, columns), like, self.dtype)

    def cast(self, array: Array) -> Array:
        """In the dtype of the sums."""
        return self.xp.astype(array, self.dtype, copy=False)

    def put(self, strip: int, share: Array) -> None:
        """Add (m, c) to a strip."""
        if self._totals[strip] is None:
            self._totals[strip] = share
        else:
            self._totals[strip] += share

    def result(self) -> Array:
        """See `Sketch.result`."""
        whole = self._totals[0] if len(self._totals) == 1 else self.xp.concat(self._totals, axis=1)
        return whole * self.matrix.scale


class SparseSketch:
    """With a sparse matrix, part by part."""

    def __init__(self, xp: Any, matrix: Sparse, dtype: Any) -> None:
        self.xp, self.matrix, self.dtype = xp, matrix, dtype
        self._totals: list[Any] = [None] * len(matrix.parts)

    @property
    def width(self) -> int:
        """See `Sketch.width`."""
        run = self.matrix.run
        return run * max(RUNS, -(-GATHERED // run))

    def held(self, size: int) -> int:
        """See `Sketch.held`: these columns as they come, on their side, and gathered."""
        return 2 * min(self.width, size) + min(self.width, size + self.matrix.run)

    def add(self, piece: Array, block: int, start: int) -> None:
        """See `Sketch.add`. Few runs are gathered at a time: all together would not stay in the cache."""
        xp, run, (m, count) = self.xp, self.matrix.run, piece.shape
        first, last = start // run, -(-(start + count) // run)
        lying = xp.astype(piece, self.dtype, copy=False).T
        lying = xp.concat([lying, xp.zeros_like(lying[:1, :])], axis=0)  # (count + 1, m), in rows
        before = np.arange(first, last)[:, None] * run - start
        together = max(1, GATHERED // run)
        for part, (left, right) in enumerate(self.matrix.parts):
            order, negated = self.matrix.sources(block, (first, last), part)
            place = before + order
            there = (order < run) & (place >= 0) & (place < count)
            wanted = beside(xp, np.where(there, place, count), lying, xp.int32)
            signs = beside(xp, 1.0 - 2.0 * negated, lying, self.dtype)
            for i in range(0, last - first, together):
                j = min(i + together, last - first)
                found = xp.take(lying, xp.reshape(wanted[i:j, :], (-1,)), axis=0)
                found *= xp.reshape(signs[i:j, :], (-1, 1))
                if together > 1:
                    found = xp.sum(xp.reshape(found, (-1, right - left, m)), axis=0)
                if self._totals[part] is None:
                    self._totals[part] = found
                else:
                    self._totals[part] += found

    def result(self) -> Array:
        """See `Sketch.result`."""
        whole = self._totals[0] if len(self._totals) == 1 else self.xp.concat(self._totals, axis=0)
        return (whole * self.matrix.scale).T
