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
from scipy.special import ndtri

from .streams import NORMALS, SIGNS, Range, Stream

GROUP = 64
"""Columns that are drawn together: the signs of a row in a word."""

LEVELS = 2**16
"""Different normal numbers."""

SLAB = 2**16
"""Numbers that are looked up together, so that what is needed on the way stays in the cache."""


class Matrix(Protocol):
    """A random matrix with scale² · E[Q Qᵀ] = 1, so that scale · Qᵀφ have the inner products of the φ in the mean."""

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
class Signs:
    """Independent random signs."""

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

    def tile(self, block: int, rows: Range, columns: Range) -> np.ndarray:
        """See `Matrix.tile`."""
        words = _words(Stream(self.seed, SIGNS), block, rows, columns, 1)
        return _looked_up(_signs_of_bytes(), words.view(np.uint8), columns)


@dataclass(frozen=True)
class Normals:
    """Independent numbers of the standard normal law, rounded to the quantiles of 2**16 equal probabilities.

    Their variance is 1, their fourth moment 2.9992, and none is beyond 4.33.
    """

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

    def tile(self, block: int, rows: Range, columns: Range) -> np.ndarray:
        """See `Matrix.tile`."""
        words = _words(Stream(self.seed, NORMALS), block, rows, columns, GROUP // 4)
        return _looked_up(_quantiles(), words.view("<u2"), columns)


def _words(stream: Stream, block: int, rows: Range, columns: Range, each: int) -> np.ndarray:
    """The words (R, G·each) of some rows, for all groups that have some of the columns."""
    groups = range(columns[0] // GROUP, -(-columns[1] // GROUP))
    found = np.empty((rows[1] - rows[0], len(groups), each), "<u8")
    span = rows[0] * each, rows[1] * each
    for place, group in enumerate(groups):
        found[:, place, :] = stream.words((group, block, 0), span).reshape(-1, each)
    return found.reshape(len(found), -1)


def _looked_up(table: np.ndarray, codes: np.ndarray, columns: Range) -> np.ndarray:
    """What the codes (R, c) of whole groups stand for, in the columns that are wanted."""
    rows, wide = codes.shape
    numbers = np.empty((rows, wide, *table.shape[1:]), np.float32)
    step = max(1, SLAB // numbers[:1].size) if rows else 1
    for start in range(0, rows, step):
        slab = slice(start, start + step)
        np.take(table, codes[slab].astype(np.intp), axis=0, out=numbers[slab], mode="clip")  # quickest so
    first = columns[0] % GROUP
    return numbers.reshape(rows, -1)[:, first : first + columns[1] - columns[0]]


@cache
def _signs_of_bytes() -> np.ndarray:
    """(256, 8): the signs that the bits of a byte stand for, least significant first; 1 means -1."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (1.0 - 2.0 * bits).astype(np.float32)


@cache
def _quantiles() -> np.ndarray:
    """Of the standard normal law, at the middles of equal probabilities, scaled to variance 1."""
    values = ndtri((np.arange(LEVELS) + 0.5) / LEVELS)
    return (values / np.sqrt(np.mean(values**2))).astype(np.float32)
