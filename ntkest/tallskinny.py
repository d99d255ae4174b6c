"""Orthonormal bases of a few long vectors in blocks: a tall-skinny QR in which no vector is ever put together.

m vectors of P numbers are blocks (m, P_l), as everywhere on the parameter side; as columns they form Y (P × m). Y is
cut into slices of rows that stay in the processor's cache, each is factored by Householder reflections, and the stack
of the slices' triangles is factored again, by the same function. That is as accurate as one QR of all of Y (R is right
to rounding whatever Y's condition number, and Q orthonormal to rounding), moves Y through memory twice, and needs
only products and small QRs, which every namespace has. Long vectors that are far from dependent, as images of a
network's Jacobian mostly are, take a third of that time: their Gram matrix is factored, and Q made by products, twice.

References: Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and sequential QR and LU factorizations",
SIAM J. Sci. Comput. 2012 (tall-skinny QR); Barlow and Smoktunowicz, "Reorthogonalized block classical Gram–Schmidt",
Numer. Math. 2013 (twice is enough, in blocks); Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, "Roundoff error analysis of
the CholeskyQR2 algorithm", Electron. Trans. Numer. Anal. 2015 (Gram matrices, twice).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from .linearization import Array, Blocks, beside, device, eps, is_concrete, number, scalar_dtype
from .tangents import Gram, SquareNorms

NUMBERS = 2**18
"""Numbers in a slice: 1 MiB of float32, which caches hold."""

MOST_TRACED = 64
"""Slices of a traced program, which unrolls them."""

LONG = 2**20
"""Numbers in all vectors from which on it is worth a look whether they are far from dependent: ..."""

FAR = 1 / 256
"""... the least eigenvalue of their Gram matrix exceeds this, once they have unit length. R loses a digit at most."""

MODERATE = 1e12
"""Numbers up to this, and from its inverse on, have squares in every dtype's range."""

TWICE_IS_ENOUGH = 0.5
"""A vector that keeps this share of its length in a projection has been orthogonal to rounding before."""

Compiled = Callable[..., Callable[..., Any]]
"""A function with its first arguments fixed, compiled where the backend can do that, like `functools.partial`."""

Cut = tuple[int, int, int]
"""(block, start, stop): numbers start … stop-1 of each vector's block."""


def orthonormalise(xp: ModuleType, blocks: Blocks, against: Blocks | None = None) -> tuple[Blocks, Array]:
    """Y = QR for vectors in blocks.

    Parameters
    ----------
    xp : array namespace
    blocks : tuple of arrays (m, P_l)
        The vectors, one a row.
    against : tuple of arrays (k, P_l), optional
        Orthonormal vectors (or zeros) that the basis is to be orthogonal to: then Y less its part in them is QR.

    Returns
    -------
    Q : tuple of arrays (m, P_l)
        Orthonormal vectors, at least float32. Dependent columns of Y get vectors of their own, orthogonal to the
        others. Vectors beyond the P that the space has are zero.
    R : array (m, m)
        Upper triangular; its diagonal has the signs that LAPACK gives it (or is positive, see below), and is zero to
        rounding where a column of Y depends on those before.

    Notes
    -----
    About 6·P·m² operations, which values don't change but for long vectors that are far from dependent. With `against`,
    block Gram–Schmidt twice, 12·P·m² + 8·P·k·m; and 6·P·(k + m)² where Y holds nothing new in some direction, or when
    traced. The derivative exists where each slice of Y has full rank; `separate` makes that so, where any basis near
    Y's range will do.
    """
    q, _, r = extend_basis(xp, against, blocks)
    return q, r


def extend_basis(
    xp: ModuleType, basis: Blocks | None, blocks: Blocks, compiled: Compiled = partial
) -> tuple[Blocks, Array, Array]:
    """Y = Q₀C + QR for a basis Q₀ of k vectors: Q (m, P_l), C (k, m) and R (m, m) as in `orthonormalise`.

    `compiled` is applied to the steps, one a slice.
    """
    dtype = working_dtype(xp, (*(basis or ()), *blocks))
    blocks = tuple(xp.astype(block, dtype, copy=False) for block in blocks)
    if basis is None or not basis[0].shape[0]:
        q, r = _factor(xp, blocks, compiled)
        return q, r[:0, :], r
    basis = tuple(xp.astype(block, dtype, copy=False) for block in basis)
    project_out = compiled(_project_out, xp)
    rest, first = project_out(basis, blocks)
    rest, r1 = _factor(xp, rest, compiled)
    rest, second = project_out(basis, rest)
    q, r2 = _factor(xp, rest, compiled)
    # What was more than rounding after the first projection keeps its length in the second
    least = xp.min(xp.abs(xp.linalg.diagonal(r2))) if r2.shape[0] else first
    if r2.shape[0] and not (is_concrete(least) and number(least) > TWICE_IS_ENOUGH):
        return _factor_beside(xp, basis, blocks, compiled)
    return q, first + second @ r1, r2 @ r1


def grown_triangle(xp: ModuleType, r: Array, across: Array, corner: Array) -> Array:
    """R of [Q₀, Q] for Y₀ = Q₀R₀ and Y = Q₀C + QR: [[R₀, C], [0, R]]."""
    below = xp.concat([across.T * 0, corner], axis=1)
    return xp.concat([xp.concat([r, across], axis=1), below], axis=0)


def _factor_beside(xp: ModuleType, basis: Blocks, blocks: Blocks, compiled: Compiled) -> tuple[Blocks, Array, Array]:
    """The same by one QR of [Q₀, Y], which gives Q₀ back up to signs: right also where Y adds nothing."""
    k = basis[0].shape[0]
    both, r = _factor(xp, tuple(xp.concat(pair, axis=0) for pair in zip(basis, blocks, strict=True)), compiled)
    signs = xp.sign(xp.linalg.diagonal(r)[:k])
    return tuple(block[k:, :] for block in both), signs[:, None] * r[:k, k:], r[k:, k:]


def separate(xp: ModuleType, blocks: Blocks, start: int = 0) -> Blocks:
    """Y with a trace of comb vectors, number start … start+m-1, so that all slices have full rank.

    The derivative of QR divides by the diagonal of R, also by that of each slice. Where a basis near Y's range is all
    that is wanted, this keeps it finite at any rank. The combs have eps^⅔ of the length of Y's longest vector.
    """
    m, total = blocks[0].shape[0], sum(_sizes(blocks))
    dtype = working_dtype(xp, blocks)
    blocks = tuple(xp.astype(block, dtype, copy=False) for block in blocks)
    if not m:
        return blocks
    square = xp.astype(xp.max(SquareNorms(xp, (0,) * len(blocks), 1)(blocks)), dtype)
    length = (square + 1e3 * float(xp.finfo(dtype).smallest_normal)) ** 0.5
    period = start + m
    teeth = length * eps(xp, blocks[0]) ** (2 / 3) * math.sqrt(period / total)
    first, out = 0, []
    for block in blocks:
        comb = np.roll(np.eye(m, period, start), -first, axis=1)
        size = block.shape[1]
        repeated = xp.tile(teeth * beside(xp, comb, block, dtype), (1, -(-size // period)))
        out.append(block + repeated[:, :size])
        first = (first + size) % period
    return tuple(out)


def _project_out(xp: ModuleType, basis: Blocks, blocks: Blocks) -> tuple[Blocks, Array]:
    """Y - Q₀C and C = Q₀ᵀY."""
    products = Gram(xp, (0,) * len(blocks), 1)(basis, blocks)[0, ...]
    products = xp.astype(products, blocks[0].dtype, copy=False)
    return tuple(y - products.T @ q for y, q in zip(blocks, basis, strict=True)), products


def _factor(xp: ModuleType, blocks: Blocks, compiled: Compiled) -> tuple[Blocks, Array]:
    """Q and R of blocks in the working dtype."""
    m = blocks[0].shape[0]
    if m > 0 and m * sum(_sizes(blocks)) >= LONG:
        size = compiled(_first_size, xp)(blocks)
        if is_concrete(size) and 1 / MODERATE < number(size) < MODERATE:
            gram, least = compiled(_unit_gram, xp)(blocks)
            if number(least) > FAR:
                q, r = compiled(_by_products, xp)(gram, blocks)
                return tuple(q), r
    return _by_reflections(xp, blocks, compiled)


def _first_size(xp: ModuleType, blocks: Blocks) -> Array:
    """The largest number of the first vector; array-only."""
    return xp.max(xp.stack([xp.max(xp.abs(block[0, :])) for block in blocks if block.shape[1]]))


def _unit_gram(xp: ModuleType, blocks: Blocks) -> tuple[Array, Array]:
    """The Gram matrix of vectors, and for vectors of unit length its least eigenvalue; array-only."""
    gram = Gram(xp, (0,) * len(blocks), 1)(blocks, blocks)[0, ...]
    finite = xp.where(xp.isfinite(gram), gram, xp.zeros_like(gram))  # eigvalsh may raise; zeros are dependent
    return gram, least_for_unit(xp, finite, xp.linalg.diagonal(finite))


def least_for_unit(xp: ModuleType, gram: Array, squares: Array) -> Array:
    """The least eigenvalue of a Gram matrix (m, m) once vectors with these `squares` (m,) are scaled to unit length."""
    sizes = xp.where(squares > 0, squares, xp.ones_like(squares)) ** 0.5
    return xp.min(xp.linalg.eigvalsh(gram / (sizes[:, None] * sizes[None, :])))


def _by_products(xp: ModuleType, gram: Array, blocks: Blocks) -> tuple[Blocks, Array]:
    """Q and R of vectors that are far from dependent; array-only."""
    r: Array | None = None
    for _ in range(2):
        gram = Gram(xp, (0,) * len(blocks), 1)(blocks, blocks)[0, ...] if r is not None else gram
        lower = xp.linalg.cholesky(gram)
        turn = xp.linalg.inv(lower)
        blocks = tuple(xp.astype(turn, block.dtype, copy=False) @ block for block in blocks)
        r = lower.T if r is None else lower.T @ r
    return blocks, xp.astype(r, blocks[0].dtype, copy=False)


def _by_reflections(xp: ModuleType, blocks: Blocks, compiled: Compiled) -> tuple[Blocks, Array]:
    """Slice by slice, then of the slices' triangles."""
    m, sizes = blocks[0].shape[0], _sizes(blocks)
    if not m:
        return blocks, blocks[0] @ blocks[0].T
    slices = _slices(sizes, m, MOST_TRACED if device(blocks[0]) is None else None)
    factor = compiled(_householder, xp)
    factors = [factor(_join(xp, [blocks[i][:, start:stop] for i, start, stop in cuts])) for cuts in slices]
    if len(slices) == 1:
        ((q, r),) = factors
        return _put_back(xp, slices, [q], len(blocks)), r
    (turns,), r = _by_reflections(xp, (_join(xp, [triangle.T for _, triangle in factors]),), compiled)
    rows = [turns[:, i * m : (i + 1) * m] @ q for i, (q, _) in enumerate(factors)]
    return _put_back(xp, slices, rows, len(blocks)), r


def _householder(xp: ModuleType, rows: Array) -> tuple[Array, Array]:
    """Qᵀ (m, n) and R (m, m) of rows (m, n); where n < m, the last rows of both are zero."""
    m, n = rows.shape
    if n >= m:
        q, r = xp.linalg.qr(rows.T)
        return q.T, r
    q, r = xp.linalg.qr(xp.concat([rows.T, beside(xp, np.zeros((m - n, m)), rows)], axis=0))
    return q[:n, :].T, r


def _slices(sizes: Sequence[int], m: int, most: int | None) -> list[tuple[Cut, ...]]:
    """Cuts of large blocks into even pieces, and runs of what is smaller, none with fewer than m numbers a vector.

    Unless there are no m numbers; then all are in one slice.
    """
    width = max(4 * m, NUMBERS // m)
    if most is not None:
        width = max(width, -(-sum(sizes) // most))
    slices: list[tuple[Cut, ...]] = []
    run: list[Cut] = []
    for block, size in enumerate(sizes):
        if 2 * size >= width:
            pieces = -(-size // width)
            edges = [size * i // pieces for i in range(pieces + 1)]
            slices += [((block, start, stop),) for start, stop in pairwise(edges)]
        elif size:
            run.append((block, 0, size))
            if _length(run) >= width:
                slices.append(tuple(run))
                run = []
    if run and slices and _length(run) < width // 2:
        run = [*slices.pop(), *run]
    return [*slices, tuple(run)] if run else slices


def _length(cuts: Sequence[Cut]) -> int:
    return sum(stop - start for _, start, stop in cuts)


def _put_back(xp: ModuleType, slices: Sequence[Sequence[Cut]], rows: Sequence[Array], count: int) -> Blocks:
    """Blocks of the rows (m, length) of slices."""
    pieces: list[list[Array]] = [[] for _ in range(count)]
    for cuts, row in zip(slices, rows, strict=True):
        at = 0
        for block, start, stop in cuts:
            pieces[block].append(row[:, at : at + stop - start])
            at += stop - start
    empty = rows[0][:, :0]
    return tuple(_join(xp, parts or [empty]) for parts in pieces)


def _join(xp: ModuleType, rows: list[Array]) -> Array:
    return rows[0] if len(rows) == 1 else xp.concat(rows, axis=1)


def _sizes(blocks: Blocks) -> tuple[int, ...]:
    return tuple(block.shape[1] for block in blocks)


def working_dtype(xp: ModuleType, blocks: Blocks) -> Any:
    """The widest dtype of the blocks, at least float32."""
    return xp.result_type(*(scalar_dtype(xp, block) for block in blocks))
