"""Inner products of the gradients of two sets of examples, block by block, by the cheaper of two ways.

A block of gradients comes as rows (k, n, P_l), or in factors (k, n, S, p) and (k, n, S, q) with gradients
Σ_s left_s ⊗ right_s, as a layer applied at S positions gives them; the first axis of a factor is 1 where it does not
depend on the cotangent. Of factors the products are Σ_st ⟨left_s, left'_t⟩ ⟨right_s, right'_t⟩; or they are multiplied
out first, which is cheaper where positions are many and the layer is thin. Integers (1, n, S) as a left factor are unit
vectors, as a table of embeddings gives them: their inner products are whether they are equal.
"""

from __future__ import annotations

import math
from itertools import pairwise
from types import ModuleType
from typing import Any

from ..linearization import Array, scalar_dtype, unfactored

TILE = 96
"""Rows that a strip of a symmetric product has at least: thinner products are slow."""

STRIPS = 8
"""Strips at most: 9/16 of the multiplications are left, and hardly fewer would be with more of them."""

ROWS = 2**22
"""Numbers of a block that are multiplied out together: little enough to be used again while they are at hand."""

Block = Array | tuple[Array, Array]
"""Rows, or factors."""


def products(xp: ModuleType, left: Block, right: Block) -> Array:
    """⟨g_i, g'_j⟩ (k, n, k', n') of one parameter block."""
    if isinstance(left, tuple) and isinstance(right, tuple) and (_looked_up(left) or _factored_pays(left, right)):
        return _in_factors(xp, left, right)
    if not isinstance(left, tuple) and not isinstance(right, tuple):
        return _gram(xp, left, right)
    return _in_rows(xp, left, right)


def cotangents_of(block: Block) -> int:
    """How many a block is of."""
    return max(int(side.shape[0]) for side in (block if isinstance(block, tuple) else (block,)))


def _factored_pays(a: tuple[Array, Array], b: tuple[Array, Array]) -> bool:
    """By multiplications: those of both Gram matrices and of their product, or those of rows and of their products."""
    n, positions = a[0].shape[1:3]
    others, there = b[0].shape[1:3]
    p, q = a[0].shape[3], a[1].shape[3]
    pairs = n * positions * others * there
    k, l = cotangents_of(a), cotangents_of(b)  # noqa: E741
    factored = pairs * (
        sum(mine.shape[0] * its.shape[0] * mine.shape[3] for mine, its in zip(a, b, strict=True)) + k * l
    )
    explicit = (k * n * positions + l * others * there) * p * q + k * n * l * others * p * q
    return bool(factored <= explicit)


def _looked_up(block: tuple[Array, Array]) -> bool:
    return len(block[0].shape) < len(block[1].shape)


def _in_factors(xp: ModuleType, a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
    second = _gram(xp, a[1], b[1])
    first = _gram(xp, a[0], b[0]) if not _looked_up(a) else a[0][..., None, None, None] == b[0]
    both = xp.astype(first, second.dtype, copy=False) * second
    return both[:, :, 0, :, :, 0] if both.shape[2] == both.shape[5] == 1 else xp.sum(both, axis=(2, 5))


def _in_rows(xp: ModuleType, a: Block, b: Block) -> Array:
    """Products by multiplying out: a part of the gradients at a time, the same of both sides."""
    p, q = next((block[0].shape[-1], block[1].shape[-1]) for block in (a, b) if isinstance(block, tuple))
    longest = max(cotangents_of(block) * _examples(block) for block in (a, b))
    step = max(1, ROWS // (longest * q))
    total: Any = None
    for start in range(0, p, step):
        rows = _rows(xp, a, start, min(start + step, p), q)
        others = rows if a is b else _rows(xp, b, start, min(start + step, p), q)
        term = _gram(xp, rows, others)
        total = term if total is None else total + term
    return xp.permute_dims(total, (1, 0, 3, 2))


def _rows(xp: ModuleType, block: Block, start: int, stop: int, q: int) -> Array:
    """A part (n, k, (stop - start)·q) of the gradients, of rows start … stop-1 of a weight with rows of length q."""
    if not isinstance(block, tuple):
        return xp.permute_dims(block[:, :, start * q : stop * q], (1, 0, 2))
    left, right = block[0][..., start:stop], block[1]
    k, n, positions, p = left.shape
    if right.shape[0] == 1:  # one product for all cotangents
        left = xp.reshape(xp.permute_dims(left, (1, 0, 3, 2)), (n, k * p, positions))
        return xp.reshape(left @ right[0, ...], (n, k, p * q))
    found = unfactored(xp, (xp.broadcast_to(left, (right.shape[0], n, positions, p)), right))
    return xp.permute_dims(found, (1, 0, 2))


def _examples(block: Block) -> int:
    return int((block[0] if isinstance(block, tuple) else block).shape[1])


def _gram(xp: ModuleType, left: Array, right: Array) -> Array:
    """Products (…, …) over the last axes (…, p), in at least float32; of an array with itself half of them."""

    def flat(side: Array) -> Array:
        wide = xp.astype(side, scalar_dtype(xp, side), copy=False)
        return xp.reshape(wide, (math.prod(side.shape[:-1]), side.shape[-1]))

    rows = flat(left)
    found = _symmetric(xp, rows) if left is right else rows @ flat(right).T
    return xp.reshape(found, (*left.shape[:-1], *right.shape[:-1]))


def _symmetric(xp: ModuleType, rows: Array) -> Array:
    """The Gram matrix of rows, in little more than half of its multiplications: each strip from the diagonal on."""
    count = rows.shape[0]
    strips = min(STRIPS, count // TILE)
    if strips < 2:
        return rows @ rows.T
    ends = [count * i // strips for i in range(strips + 1)]
    spans = list(pairwise(ends))
    upper = [rows[start:stop, :] @ rows[start:, :].T for start, stop in spans]
    whole = []
    for i, (start, stop) in enumerate(spans):
        mirrored = [upper[j][:, start - ends[j] : stop - ends[j]].T for j in range(i)]
        whole.append(xp.concat([*mirrored, upper[i]], axis=1))
    return xp.concat(whole, axis=0)
