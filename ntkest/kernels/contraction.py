"""Inner products of the gradients of two sets of examples, block by block, by the cheaper of two ways.

A block of gradients comes as rows (k, n, P_l), or in factors (k, n, S, p) and (k, n, S, q) with gradients
Σ_s left_s ⊗ right_s, as a layer applied at S positions gives them; the first axis of a factor is 1 where it does not
depend on the cotangent. Of factors the products are Σ_st ⟨left_s, left'_t⟩ ⟨right_s, right'_t⟩; or they are multiplied
out first, which is cheaper where positions are many and the layer is thin. Integers (1, n, S) as a left factor are unit
vectors, as a table of embeddings gives them: their inner products are whether they are equal.
"""

from __future__ import annotations

import math
from types import ModuleType

from ..linearization import Array, scalar_dtype, unfactored

TILE = 256
"""Rows from which on two smaller products are worth half of a large one."""

Block = Array | tuple[Array, Array]
"""Rows, or factors."""


def products(xp: ModuleType, left: Block, right: Block) -> Array:
    """⟨g_i, g'_j⟩ (k, n, k', n') of one parameter block."""
    if isinstance(left, tuple) and isinstance(right, tuple) and (_looked_up(left) or _factored_pays(left, right)):
        return _in_factors(xp, left, right)
    rows, others = (_rows(xp, block) for block in (left, right))
    return _gram(xp, rows, others)


def bounded_products(xp: ModuleType, left: Block, right: Block, most: int) -> Array:
    """`products` by halves of the examples, until no product holds more than `most` numbers on its way.

    Those are Gram matrices over positions, or the rows of this one layer. Halves of a block with itself are taken once.
    """
    n, there = (_examples(block) for block in (left, right))
    if max(n, there) == 1 or _numbers(left, right) <= most:
        return products(xp, left, right)
    if left is right:
        first, second = _split(left)
        across = bounded_products(xp, first, second, most)
        mirrored = xp.permute_dims(across, (2, 3, 0, 1))
        above = xp.concat([bounded_products(xp, first, first, most), across], axis=3)
        below = xp.concat([mirrored, bounded_products(xp, second, second, most)], axis=3)
        return xp.concat([above, below], axis=1)
    if n >= there:
        return xp.concat([bounded_products(xp, half, right, most) for half in _split(left)], axis=1)
    return xp.concat([bounded_products(xp, left, half, most) for half in _split(right)], axis=3)


def cotangents_of(block: Block) -> int:
    """How many a block is of."""
    return max(int(side.shape[0]) for side in (block if isinstance(block, tuple) else (block,)))


def _examples(block: Block) -> int:
    return int((block[0] if isinstance(block, tuple) else block).shape[1])


def _split(block: Block) -> tuple[Block, Block]:
    """The first half of the examples, and the others."""
    half = _examples(block) // 2
    if isinstance(block, tuple):
        left, right = block
        return (left[:, :half, ...], right[:, :half, ...]), (left[:, half:, ...], right[:, half:, ...])
    return block[:, :half, ...], block[:, half:, ...]


def _numbers(left: Block, right: Block) -> int:
    """What `products` holds: the larger Gram matrix over positions, or rows that were in factors; and the result."""
    shapes = [(cotangents_of(block), _examples(block)) for block in (left, right)]
    result = math.prod(k * n for k, n in shapes)
    if isinstance(left, tuple) and isinstance(right, tuple) and (_looked_up(left) or _factored_pays(left, right)):
        return int(result * left[1].shape[2] * right[1].shape[2])
    rows = [
        k * n * math.prod(side.shape[-1] for side in block) if isinstance(block, tuple) else 0
        for (k, n), block in zip(shapes, (left, right), strict=True)
    ]
    return max(result, *rows)


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


def _rows(xp: ModuleType, block: Block) -> Array:
    if not isinstance(block, tuple):
        return block
    count = cotangents_of(block)
    left, right = (xp.broadcast_to(side, (count, *side.shape[1:])) for side in block)
    return unfactored(xp, (left, right))


def _gram(xp: ModuleType, left: Array, right: Array) -> Array:
    """Products (…, …) over the last axes (…, p), in at least float32; of an array with itself half of them."""

    def flat(side: Array) -> Array:
        wide = xp.astype(side, scalar_dtype(xp, side), copy=False)
        return xp.reshape(wide, (math.prod(side.shape[:-1]), side.shape[-1]))

    rows = flat(left)
    found = _symmetric(xp, rows) if left is right else rows @ flat(right).T
    return xp.reshape(found, (*left.shape[:-1], *right.shape[:-1]))


def _symmetric(xp: ModuleType, rows: Array) -> Array:
    """The Gram matrix of rows, in little more than half of its multiplications."""
    half = rows.shape[0] // 2
    if half < TILE:
        return rows @ rows.T
    first, second = rows[:half, :], rows[half:, :]
    across = first @ second.T
    above = xp.concat([_symmetric(xp, first), across], axis=1)
    return xp.concat([above, xp.concat([across.T, _symmetric(xp, second)], axis=1)], axis=0)
