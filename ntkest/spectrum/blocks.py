"""Batches of vectors in blocks: projections, and orthonormal bases that reveal the rank.

A batch of k vectors is a tuple of arrays (k, n_l), as on the parameter side; a batch on the output side is a tuple of
one. Vectors are rows throughout, so a basis Q stands for the matrix with orthonormal rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from ..linearization import Array, Blocks, accumulator
from ..tallskinny import orthonormalise
from ..tangents import Gram

MOST_SLICES = 32
"""Of columns of a block."""


def combine(xp: ModuleType, coefficients: Array, rows: Blocks) -> Blocks:
    """(j, k) times k vectors: j vectors."""
    return tuple(xp.astype(coefficients, block.dtype, copy=False) @ block for block in rows)


def deflate(xp: ModuleType, rows: Blocks, basis: Blocks) -> Blocks:
    """What is left of `rows` without their components along the orthonormal `basis`."""
    products = Gram(xp, (0,) * len(rows), 1)(rows, basis)[0, ...]  # (rows, basis)
    return subtract(xp, rows, products, basis)


def subtract(xp: ModuleType, rows: Blocks, coefficients: Array, others: Blocks) -> Blocks:
    """Rows minus coefficients (j, k) times k other vectors."""
    return tuple(a - b for a, b in zip(rows, combine(xp, coefficients, others), strict=True))


def factor(xp: ModuleType, rows: Blocks) -> tuple[Blocks, Array]:
    """Orthonormal rows Q and the factor F (k, k) with rows = F Q; for at most as many vectors as they have entries."""
    q, r = orthonormalise(xp, rows)
    return tuple(xp.astype(a, b.dtype, copy=False) for a, b in zip(q, rows, strict=True)), r.T


def triangle(xp: ModuleType, rows: Blocks) -> Array:
    """F (k, m), m ≤ k, with rows = F Q for an orthonormal Q that is not made: by QR of a slice of columns at a time."""
    wide = accumulator(xp, rows[0])
    upper: Array = None  # (m, k), in the accumulator's dtype
    for part in _slices(rows):
        tall = xp.astype(part.T, wide, copy=False)
        stack = tall if upper is None else xp.concat([upper, tall], axis=0)
        upper = xp.linalg.qr(stack, mode="reduced")[1]
    return upper.T


def wide_gram(xp: ModuleType, rows: Blocks) -> Array:
    """Inner products (k, k), multiplied and added in the accumulator's dtype, a slice of columns at a time."""
    wide = accumulator(xp, rows[0])
    total: Array = None
    for part in _slices(rows):
        part = xp.astype(part, wide, copy=False)
        product = part @ part.T
        total = product if total is None else total + product
    return total


def _slices(rows: Blocks) -> Iterator[Array]:
    """At most `MOST_SLICES` of each block, at least four times as wide as there are rows."""
    for block in rows:
        k, size = block.shape
        width = max(4 * k, -(-size // MOST_SLICES))
        for start in range(0, size, width):
            yield block[:, start : min(start + width, size)]
