"""Exact moments from min(M, P) one-sided passes: all rows, or all columns, of J; or from fewer, by `bykernel`.

With the rows (VJPs of the unit cotangents) K = J Jᵀ is their Gram matrix. With the columns (JVPs of the unit tangents)
JᵀJ is, which has the same trace and norm, and ⟨K₁, K₂⟩ = ‖J₁ᵀJ₂‖_F². Traces alone keep nothing. Where the images
do not fit in the memory budget, tiles of the Gram matrix are made from recomputed images: further
passes, counted like all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, UnsupportedModeError, beside, identity
from ..probes import Centre
from ..tangents import Gram
from .bykernel import ByKernel, by_kernel
from .images import OutputImages, OutputNorms, heights, image_bytes, row_gram
from .problem import Key, Moment, Problem, target_moments

Chunk = tuple[int, int, int]
"""(part, start, stop): images of the units start … stop-1, all in one part (part -1: rows, which are in all)."""


class Exact:
    """All rows or all columns of J."""

    name = "exact"

    def passes(self, problem: Problem) -> int:
        """min(M, P) a kernel, more where the images do not fit in memory; and one for exact targets.

        With gradients of single examples M/N, as far as `ByKernel` serves.
        """
        short, rows = _shorter(problem, self.mode(problem))
        return (rows if short is None else short.passes()) + problem.targets

    def cost(self, problem: Problem) -> int:
        """`passes`, and what else takes time, as passes: what other methods' passes are to be compared with."""
        short, rows = _shorter(problem, self.mode(problem))
        return (rows if short is None else min(rows, short.cost())) + problem.targets

    def mode(self, problem: Problem) -> str:
        """The cheaper mode of those that all kernels have."""
        modes = [mode for mode in ("vjp", "jvp") if problem.has(mode)]
        if not modes:
            raise UnsupportedModeError("method='exact' needs an AD mode that all linearizations have")
        return min(modes, key=lambda mode: _cost(problem, mode))

    def run(self, problem: Problem) -> dict[Key, Moment]:
        """All wanted moments."""
        short, _ = _shorter(problem, self.mode(problem))
        if short is not None:
            return {**short.run(), **target_moments(problem)}
        images = _Images(problem, self.mode(problem))
        sums = _Sums()
        moments = target_moments(problem) if problem.has("vjp") else {}
        for key in sorted(problem.needs - moments.keys()):
            if key[0] in ("trace", "target"):
                _single(problem, images, key, sums)
        if images.mode == "vjp":
            _row_tiles(problem, images, sums)
        else:
            _column_tiles(problem, images, sums)
        return {**{key: Moment(total) for key, total in sums.totals.items()}, **moments}


EXACT = Exact()


def _shorter(problem: Problem, mode: str) -> tuple[ByKernel | None, int]:
    """The way by the kernel between examples, if it takes fewer passes than rows or columns; and what these take."""
    cost, short = _cost(problem, mode), by_kernel(problem)
    return (short if short is not None and short.passes() < cost else None), cost


@dataclass
class _Sums:
    totals: dict[Key, Array] = field(default_factory=dict)

    def add(self, key: Key, rows: Array) -> None:
        self.totals[key] = self.totals[key] + rows if key in self.totals else rows


def _single(problem: Problem, images: _Images, key: Key, sums: _Sums) -> None:
    """Sums over single images: traces, and ⟨y, J e_j⟩² where there is no VJP for the targets."""
    a, xp = key[1], problem.xp
    for chunk in images.chunks(a):
        if key[0] == "target":
            values = xp.sum(heights(problem, (images.get(a, chunk),)), axis=0)
        elif images.mode == "vjp":
            sums.add(key, xp.sum(problem.whole_and_parts(images.norms(a, chunk), 1), axis=0))
            continue
        else:
            values = xp.sum(images.norms(a, chunk), axis=0)
        sums.add(key, values * _rows_of(problem, chunk[0], chunk[0], values))


def _row_tiles(problem: Problem, images: _Images, sums: _Sums) -> None:
    """Σ over i, j of products of K_ij, by tiles on and above the diagonal."""
    pairs = [key for key in problem.needs if key[0] in ("square", "cross")]
    if not pairs:
        return
    xp, kernels = problem.xp, problem.indices
    chunks = images.chunks(0)
    for i, left in enumerate(chunks):
        lefts = [images.get(a, left) for a in kernels]
        for j, right in enumerate(chunks[i:], i):
            rights = lefts if i == j else [images.get(a, right) for a in kernels]
            grams = [problem.kernels[a].compile(row_gram(problem, a, "vjp"))(lefts[a], rights[a]) for a in kernels]
            for key in pairs:
                tile = xp.sum(grams[key[1]] * grams[key[-1]], axis=(1, 2))
                sums.add(key, tile if i == j else 2.0 * tile)


def _column_tiles(problem: Problem, images: _Images, sums: _Sums) -> None:
    """‖J_aᵀ J_b‖_F² by tiles; a part's share comes from tiles with both sides in the part."""
    xp = problem.xp
    gram = Gram(xp, (0,), 1)
    for key in problem.needs:
        if key[0] not in ("square", "cross"):
            continue
        a, b = key[1], key[-1]
        for i, left in enumerate(images.chunks(a)):
            lefts = images.get(a, left)
            for j, right in enumerate(images.chunks(b)):
                if a == b and j < i:
                    continue
                rights = lefts if a == b and i == j else images.get(b, right)
                tile = xp.sum(problem.kernels[a].compile(gram)(lefts, rights) ** 2, axis=(1, 2))
                weight = 2.0 if a == b and i != j else 1.0
                sums.add(key, weight * tile * _rows_of(problem, left[0], right[0], tile))


class _Images:
    """Rows (blocks) or columns (c, M) of the Jacobians, kept as long as all fit in the memory budget."""

    def __init__(self, problem: Problem, mode: str) -> None:
        self.problem = problem
        self.mode = mode
        self.fits = _fits(problem, mode)
        self.kept: dict[tuple[int, Chunk], Any] = {}

    def chunks(self, a: int) -> list[Chunk]:
        """The chunks of kernel a."""
        return _chunks(self.problem, self.mode, a)

    def get(self, a: int, chunk: Chunk) -> Any:
        """The images of a chunk."""
        if (a, chunk) in self.kept:
            return self.kept[a, chunk]
        reduce = identity if self.mode == "vjp" else OutputImages(self.problem.xp, self.problem.centre)
        images = self._push(a, chunk, reduce)
        if self.fits:
            self.kept[a, chunk] = images
        return images

    def norms(self, a: int, chunk: Chunk) -> Array:
        """Squared norms of the images: (c, parts) of rows, (c, 1) of columns; from kept images where there are any."""
        if self.mode == "vjp":
            reduce: Any = self.problem.parameter_norms(a)
        else:
            reduce = OutputNorms(self.problem.xp, None)
        pairs = any(key[0] in ("square", "cross") and a in key[1:] for key in self.problem.needs)
        if pairs and self.fits:
            return self.problem.kernels[a].compile(reduce)(self.get(a, chunk))
        if self.mode == "jvp":
            reduce = OutputNorms(self.problem.xp, self.problem.centre)
        return self._push(a, chunk, reduce)

    def _push(self, a: int, chunk: Chunk, reduce: Any) -> Any:
        problem, kernel = self.problem, self.problem.kernels[a]
        J, exponent = kernel.J, self.problem.exponents[a]
        start, stop = chunk[1], chunk[2]
        if self.mode == "vjp":
            index = beside(J.xp, np.arange(start, stop), J.outputs, J.xp.int32)
            expand = UnitCotangents(J.xp, problem.size, J.outputs.dtype, exponent, problem.centre)
            return kernel.pull(reduce, index, expand, stop - start)
        index = beside(J.xp, np.arange(start, stop), J.params[0], J.xp.int32)
        sizes = tuple(math.prod(p.shape) for p in J.params)
        tangents = UnitTangents(J.xp, sizes, tuple(p.dtype for p in J.params), exponent)
        return kernel.map_jvp(reduce, index, tangents, stop - start)


@dataclass(frozen=True)
class UnitCotangents:
    """Expands indices (c,) to H e_i · 2**-exponent, (c, M)."""

    xp: ModuleType
    size: int
    dtype: Any
    exponent: int
    centre: Centre | None

    def __call__(self, index: Array) -> Array:
        """Expand a chunk."""
        units = _one_hot(self.xp, index, 0, self.size, self.dtype, self.exponent)
        return units if self.centre is None else self.centre(self.xp, units)


@dataclass(frozen=True)
class UnitTangents:
    """Expands indices (c,) into all parameters to unit tangents e_j · 2**-exponent, blocks (c, P_l)."""

    xp: ModuleType
    sizes: tuple[int, ...]
    dtypes: tuple[Any, ...]
    exponent: int

    def __call__(self, index: Array) -> tuple[Array, ...]:
        """Expand a chunk."""
        starts = np.cumsum((0, *self.sizes))
        return tuple(
            _one_hot(self.xp, index, int(start), size, dtype, self.exponent)
            for start, size, dtype in zip(starts, self.sizes, self.dtypes, strict=False)
        )


def _one_hot(xp: ModuleType, index: Array, start: int, size: int, dtype: Any, exponent: int) -> Array:
    place = beside(xp, np.arange(start, start + size), index)
    return xp.astype(index[:, None] == place[None, :], dtype) * 2.0**-exponent


def _chunks(problem: Problem, mode: str, a: int) -> list[Chunk]:
    """Units of kernel a in chunks that fit the budget twice over; columns in chunks of one block each."""
    each = sum(image_bytes(problem, mode))
    most = 2**31 if _fits(problem, mode) else max(1, problem.memory // (2 * each))
    if mode == "vjp":
        return [(-1, s, min(s + most, problem.size)) for s in range(0, problem.size, most)]
    chunks, first = [], 0
    for block, p in enumerate(problem.kernels[a].J.params):
        size = math.prod(p.shape)
        part = problem.groups.part_of[block] if problem.groups.names else 0
        chunks += [(part, first + s, first + min(s + most, size)) for s in range(0, size, most)]
        first += size
    return chunks


def _fits(problem: Problem, mode: str) -> bool:
    each = image_bytes(problem, mode)
    counts = [problem.size if mode == "vjp" else problem.parameters(a) for a in range(len(each))]
    return bool(sum(n * size for n, size in zip(counts, each, strict=True)) <= problem.memory)


def _cost(problem: Problem, mode: str) -> int:
    """Passes of a run: every image once where images are kept or only traces are wanted, else tile by tile."""
    kernels = problem.indices
    weight: list[int] = [k.J.passes_per_jvp if mode == "jvp" else 1 for k in problem.kernels]
    once: list[int] = [sum(stop - start for _, start, stop in _chunks(problem, mode, a)) for a in kernels]
    pairs = [key for key in problem.needs if key[0] in ("square", "cross")]
    if not pairs or _fits(problem, mode):
        return int(sum(weight[a] * once[a] for a in kernels))
    singles = [key[1] for key in problem.needs if key[0] == "trace" or (key[0] == "target" and not problem.has("vjp"))]
    total = sum(weight[a] * once[a] for a in singles)
    lengths = [[stop - start for _, start, stop in _chunks(problem, mode, a)] for a in kernels]
    if mode == "vjp":
        return int(total + sum(weight[a] * sum(sum(n[i:]) for i in range(len(n))) for a, n in enumerate(lengths)))
    for key in pairs:
        a, b = key[1], key[-1]
        if a == b:
            total += weight[a] * sum(sum(lengths[a][i:]) for i in range(len(lengths[a])))
        else:
            total += weight[a] * once[a] + weight[b] * once[b] * len(lengths[a])
    return int(total)


def _rows_of(problem: Problem, left: int, right: int, like: Array) -> Array:
    """(rows,): 1 for the whole, and 1 for the part that both sides lie in."""
    flags = [1.0] + [float(left == right == part) for part in range(len(problem.groups.names))]
    return beside(problem.xp, flags, like)
