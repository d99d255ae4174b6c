"""Random matrices Q (P, dim) any part of which can be made at any time, the same on every machine and backend.

Numbers are keyed by (seed, kind) and counted by (place in the block, group of 64 columns, parameter block): a row of a
group takes one 64-bit word for signs and 16 for normal numbers, row after row. So every entry has its place in the
stream, whatever part it is made with, and a matrix with fewer columns is the beginning of one with more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from ..threads import Range, shared
from .streams import NORMALS, SIGNS, Stream

GROUP = 64
"""Columns that are drawn together: the signs of a row in a word."""

LEVELS = 2**16
"""Different normal numbers."""

SLAB = 2**16
"""Numbers that are looked up together, so that what is needed on the way stays in the cache."""


class Matrix(Protocol):
    """A random matrix with scale² · E[Q Qᵀ] = 1, so that scale · Qᵀφ have the inner products of the φ in the mean."""

    @property
    def seed(self) -> int:
        """What its numbers depend on."""
        ...

    @property
    def dim(self) -> int:
        """The number of columns."""
        ...

    @property
    def entries(self) -> int:
        """How many of a row are not zero."""
        ...

    @property
    def scale(self) -> float:
        """What features Qᵀφ are multiplied by."""
        ...

    def tile(self, block: int, rows: Range, columns: Range) -> np.ndarray:
        """Entries of some rows of a parameter block and some columns, float32."""
        ...


@dataclass(frozen=True)
class Dense:
    """What matrices without zeros have in common: independent entries of variance 1."""

    seed: int
    dim: int

    @property
    def entries(self) -> int:
        """All."""
        return self.dim

    @property
    def scale(self) -> float:
        """1/√dim."""
        return float(self.dim**-0.5)


@dataclass(frozen=True)
class Signs(Dense):
    """Independent random signs."""

    def tile(self, block: int, rows: Range, columns: Range) -> np.ndarray:
        """See `Matrix.tile`."""
        return _made(self.seed, SIGNS, 1, _signs_of_bytes(), "u1", block, rows, columns)


@dataclass(frozen=True)
class Normals(Dense):
    """Independent numbers of the standard normal law, rounded to the quantiles of 2**16 equal probabilities.

    Their variance is 1, their fourth moment 2.9992, and none is beyond 4.33.
    """

    def tile(self, block: int, rows: Range, columns: Range) -> np.ndarray:
        """See `Matrix.tile`."""
        return _made(self.seed, NORMALS, GROUP // 4, _quantiles(), "<u2", block, rows, columns)


def _made(
    seed: int, kind: int, each: int, table: np.ndarray, codes: str, block: int, rows: Range, columns: Range
) -> np.ndarray:
    """A tile: what `codes` in words stand for in a table, with `each` words for a row of a group."""
    groups = range(columns[0] // GROUP, -(-columns[1] // GROUP))
    wide = len(groups) * GROUP
    numbers = np.empty((rows[1] - rows[0], wide), np.float32)

    def make(span: Range) -> None:
        stream = Stream(seed, kind)
        words = np.empty((span[1] - span[0], len(groups), each), "<u8")
        for place, group in enumerate(groups):
            drawn = stream.words((group, block, 0), (span[0] * each, span[1] * each))
            words[:, place, :] = drawn.reshape(-1, each)
        found = numbers[span[0] - rows[0] : span[1] - rows[0]]
        step = max(1, SLAB // wide)
        for start in range(0, len(words), step):
            indices = words[start : start + step].view(codes).astype(np.intp).ravel()
            slab = found[start : start + step].reshape(len(indices), *table.shape[1:])
            np.take(table, indices, axis=0, out=slab, mode="clip")  # quickest so

    shared(make, rows, wide)
    first = columns[0] % GROUP
    return numbers[:, first : first + columns[1] - columns[0]]


@cache
def _signs_of_bytes() -> np.ndarray:
    """(256, 8): the signs that the bits of a byte stand for, least significant first; 1 means -1."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (1.0 - 2.0 * bits).astype(np.float32)


@cache
def _quantiles() -> np.ndarray:
    """Of the standard normal law, at the middles of equal probabilities, scaled to variance 1."""
    from scipy.special import ndtri  # imported where it is needed: `import ntkest` goes without scipy

    values: np.ndarray = ndtri((np.arange(LEVELS) + 0.5) / LEVELS)
    return np.asarray(values / np.sqrt(np.mean(values**2)), dtype=np.float32)
