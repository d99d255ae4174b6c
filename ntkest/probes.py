"""Seeded sign probes: the same numbers on every backend, in any chunking, after any resume.

The Array API has no random numbers. Signs come from NumPy's Philox counter generator, keyed by (seed, stream) and
counted by (probe, block), so that probe i of a seed never depends on how many probes were drawn
before it. They travel as packed bits, an eighth of a byte a sign, and are expanded on the device
inside the adapter's loop: by shifts where that is compiled and fused with what follows, else by a table.

Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from .linearization import Array, InvalidTypeError, InvalidValueError, Linearization, beside
from .threads import Range, shared

COTANGENTS, TANGENTS, SKETCH, TANGENT_SKETCH = range(4)
"""Kinds of stream. Stream ``kind + 4 * i`` belongs to the i-th linearization; cotangents are shared by all."""

NORMAL_COTANGENTS = COTANGENTS + 4
"""The stream of normally distributed cotangents."""

SLAB = 2**16
"""Normal numbers that are made together, so that what is needed on the way stays in the cache."""


class Probes(NamedTuple):
    """Packed sign probes. A plain tuple of arrays, so that frameworks take it as an argument of jitted functions.

    Axis 0 runs over probes, axis 1 over bytes, 8 signs a byte, least significant bit first; bit 1 means -1.
    """

    cotangents: Array | None = None
    """(m, ⌈M/8⌉): probes of the outputs, shared by all linearizations; or, not packed, (m, M) normal numbers."""
    tangents: tuple[tuple[Array, ...], ...] | None = None
    """For each linearization, for each of its blocks, (m, ⌈P_l/8⌉): probes of the parameters."""
    sketch: Array | None = None
    """(k, ⌈M/8⌉): the sketching matrix S of Hutch++."""
    tangent_sketch: tuple[tuple[Array, ...], ...] | None = None
    """For each linearization and block, (k, ⌈P_l/8⌉): the sketching matrix V of the 2k+l form of Hutch++."""


@dataclass(frozen=True)
class Centre:
    """The projector H that removes the mean over `axes` from arrays of `shape`, acting on rows (c, M)."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The dimension of what is left."""
        return math.prod(self.shape) - math.prod(n for axis, n in enumerate(self.shape) if axis not in self.axes)

    def __call__(self, xp: ModuleType, rows: Array) -> Array:
        """Rows (c, M) with their means over `axes` taken away."""
        if not self.shape:
            return rows - rows
        block = xp.reshape(rows, (rows.shape[0], *self.shape))
        block = block - xp.mean(block, axis=tuple(axis + 1 for axis in self.axes), keepdims=True)
        return xp.reshape(block, rows.shape)


@dataclass(frozen=True)
class SignCotangents:
    """Expands packed bits (c, ⌈M/8⌉) to cotangents (c, M): ω · 2**-exponent, centred if asked."""

    xp: ModuleType
    size: int
    dtype: Any
    exponent: int
    centre: Centre | None = None
    fused: bool = False

    def __call__(self, bits: Array) -> Array:
        """Expand a chunk."""
        signs = _expand(self.xp, bits, self.size, self.dtype, self.exponent, self.fused)
        return signs if self.centre is None else self.centre(self.xp, signs)


@dataclass(frozen=True)
class SignTangents:
    """Expands packed bits to tangent blocks v · 2**-exponent; zero outside the blocks in `only`."""

    xp: ModuleType
    sizes: tuple[int, ...]
    dtypes: tuple[Any, ...]
    exponent: int
    only: frozenset[int] | None = None
    fused: bool = False

    def __call__(self, bits: tuple[Array, ...]) -> tuple[Array, ...]:
        """Expand a chunk."""
        return tuple(
            _expand(self.xp, block, size, dtype, self.exponent, self.fused)
            if self.only is None or index in self.only
            else beside(self.xp, np.zeros((block.shape[0], size), np.float32), block, dtype)
            for index, (block, size, dtype) in enumerate(zip(bits, self.sizes, self.dtypes, strict=True))
        )


def cotangent_expander(J: Linearization, exponent: int, centre: Centre | None = None) -> SignCotangents:
    """How sign cotangents of J are made from bits."""
    return SignCotangents(J.xp, math.prod(J.outputs.shape), J.outputs.dtype, exponent, centre, _compiles(J))


def tangent_expander(J: Linearization, exponent: int, only: frozenset[int] | None = None) -> SignTangents:
    """How sign tangents of J are made from bits."""
    sizes = tuple(math.prod(p.shape) for p in J.params)
    return SignTangents(J.xp, sizes, tuple(p.dtype for p in J.params), exponent, only, _compiles(J))


STEP, BELOW = 16, 4
"""Where the range of the dtypes is wide, probes are scaled in steps of 2**STEP only, by none for e from -BELOW on.

The scale is part of compiled programs, and J's drifts while a network trains: a finer one would compile again and
again. Largest entries of images up to 2**(STEP - BELOW) keep ‖K‖_F² of 10**9 parameters in the range of float32.
"""


def probe_exponent(J: Linearization) -> int:
    """The exponent by which probes of J are scaled, within what the narrowest dtype of J can hold exactly.

    In steps of `STEP`, except in float16, which is too narrow for that.
    """
    limit = min(int(math.log2(float(J.xp.finfo(a.dtype).max))) for a in (J.outputs, *J.params)) - 4
    lowest = min(int(-math.log2(float(J.xp.finfo(a.dtype).smallest_normal))) for a in (J.outputs, *J.params)) - 4
    wide = limit > 4 * STEP
    wanted = (J.exponent + BELOW) // STEP * STEP if wide else J.exponent
    return max(-limit, min(lowest, wanted))


def draw_cotangents(J: Linearization, seed: int, start: int, stop: int, kind: int = COTANGENTS) -> Array:
    """Bits of probes start … stop-1 of the outputs, on the device of J."""
    return beside(J.xp, _draw(seed, kind, start, stop, 0, math.prod(J.outputs.shape)), J.outputs, J.xp.uint8)


def draw_normal_cotangents(J: Linearization, seed: int, start: int, stop: int) -> Array:
    """Standard normal probes start … stop-1 of the outputs, (stop - start, M), in their dtype and on their device."""
    count = math.prod(J.outputs.shape)
    together = max(1, SLAB // count)
    numbers = np.empty((stop - start, count), np.float32)

    def make(rows: Range) -> None:
        for first in range(*rows, together):
            last = min(first + together, rows[1])
            bits = _draw(seed, NORMAL_COTANGENTS, start + first, start + last, 0, 64 * -(-count // 2))
            numbers[first:last] = _normal(bits)[:, :count]

    shared(make, (0, stop - start), count)
    return beside(J.xp, numbers, J.outputs)


def draw_tangents(
    J: Linearization, seed: int, start: int, stop: int, which: int = 0, kind: int = TANGENTS
) -> tuple[Array, ...]:
    """Bits of probes start … stop-1 of the parameters of J, which is linearization number `which`."""
    return tuple(
        beside(J.xp, _draw(seed, kind + 4 * which, start, stop, block, math.prod(p.shape)), p, J.xp.uint8)
        for block, p in enumerate(J.params)
    )


def check_seed(seed: Any) -> int:
    """`seed` if it is an integer that fits the generator's 64-bit key."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InvalidTypeError(f"seed= takes an integer, not {seed!r}")
    if not 0 <= seed < 2**64:
        raise InvalidValueError(f"seed= takes an integer from 0 to 2**64 - 1, not {seed}")
    return int(seed)


def _draw(seed: int, stream: int, start: int, stop: int, block: int, count: int) -> np.ndarray:
    """Packed bits (stop - start, ⌈count/8⌉) of one block."""
    width = -(-count // 8)
    words = -(-count // 64)
    bits = np.empty((stop - start, width), dtype=np.uint8)
    generator = np.random.Philox(key=np.asarray([seed, stream], dtype=np.uint64))
    state = generator.state
    for row, probe in enumerate(range(start, stop)):
        state["state"]["counter"][:] = (0, 0, block, probe)
        generator.state = state  # an eighth of the time of a new generator
        bits[row] = generator.random_raw(words).astype("<u8", copy=False).view(np.uint8)[:width]
    return bits


def _normal(bits: np.ndarray) -> np.ndarray:
    """Two standard normal numbers from each 8 bytes of a row, by Box and Muller (1958), in float32, which is fast."""
    halves = np.ascontiguousarray(bits).view("<u4")
    pairs = halves.shape[1] // 2
    radius, angle = (halves[:, part].astype(np.float32) for part in (slice(0, pairs), slice(pairs, None)))
    radius = np.sqrt(np.float32(-2) * np.log((radius + np.float32(0.5)) * np.float32(2.0**-32)))
    angle *= np.float32(2 * math.pi * 2.0**-32)
    normal = np.empty_like(halves, dtype=np.float32)
    np.multiply(radius, np.cos(angle), out=normal[:, :pairs])
    np.multiply(radius, np.sin(angle), out=normal[:, pairs:])
    return normal


def _compiles(J: Linearization) -> bool:
    """Whether the adapter compiles what it maps, so that elementwise steps melt into one."""
    return hasattr(J, "compile")


_TABLE = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(float)
"""(256, 8): the eight signs of each byte."""


def _expand(xp: ModuleType, bits: Array, size: int, dtype: Any, exponent: int, fused: bool) -> Array:
    """Signs (c, size) scaled by 2**-exponent, from bits (c, ⌈size/8⌉)."""
    spread = _shifted if fused else _looked_up
    signs = xp.reshape(spread(xp, bits, dtype, math.ldexp(1.0, -exponent)), (bits.shape[0], 8 * bits.shape[1]))
    return signs[:, :size]


def _shifted(xp: ModuleType, bits: Array, dtype: Any, scale: float) -> Array:
    """(c, w) to (c, w, 8), in a third of the time of a table once compiled, in 2 to 20 times as much without."""
    places = beside(xp, np.arange(8), bits, xp.uint8)
    ones = xp.astype(xp.bitwise_right_shift(bits[:, :, None], places) & 1, dtype)
    return scale - (2 * scale) * ones


def _looked_up(xp: ModuleType, bits: Array, dtype: Any, scale: float) -> Array:
    """(c, w) to (c·w, 8), by the signs of each byte."""
    table = beside(xp, scale * _TABLE, bits, dtype)
    return xp.take(table, xp.astype(xp.reshape(bits, (-1,)), xp.int32), axis=0)
