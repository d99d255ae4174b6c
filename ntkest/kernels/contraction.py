"""Inner products of the gradients of two sets of examples, block by block, by the cheaper of two ways.

A block of gradients comes as rows (k, n, P_l), or in factors (k, n, S, p) and (k, n, S, q) with gradients
Σ_s left_s ⊗ right_s, as a layer applied at S positions gives them; the first axis of a factor is 1 where it does not
depend on the cotangent. Of factors the products are Σ_st ⟨left_s, left'_t⟩ ⟨right_s, right'_t⟩; or they are multiplied
out first, which is cheaper where positions are many and the layer is thin. Integers (1, n, S) as a left factor are unit
vectors, as a table of embeddings gives them: their inner products are whether they are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat

from ..linearization import Array, scalar_dtype, unfactored

THIN, TILE, STRIPS = 32, 128, 8
"""Rows that a strip of a symmetric product has at least, where there are two and where there are more, for thinner
products are slow; and strips at most: 9/16 of the multiplications are left, and hardly fewer would be with more."""

COPIED_TILE, COPIED_STRIPS = 320, 4
"""The same for XLA, which copies the rows that it takes, and is the slower with few of them."""

PIECE = 2**22
"""Numbers of rows to make from factors at a time: fresh memory for all of them would cost as much as the products."""

ALIGNED = 8
"""Columns of such a piece are a multiple of this where they can be: products of odd ones take 1.3 times as long."""

Block = Array | tuple[Array, Array]
"""Rows, or factors."""


def products(xp: ModuleType, left: Block, right: Block) -> Array:
    """⟨g_i, g'_j⟩ (k, n, k', n') of one parameter block."""
    if through_rows(left, right):
        total: Any = None
        first = turned(xp, left)
        second = first if left is right else turned(xp, right)
        for own, its in in_pieces(first, second):
            term = turned_products(xp, own, its)
            total = term if total is None else total + term
        return total
    if isinstance(left, tuple) and isinstance(right, tuple):
        return _in_factors(xp, left, right)
    return gram(xp, unfactored(xp, left), unfactored(xp, right))


def cotangents_of(block: Block) -> int:
    """How many a block is of."""
    return max(int(side.shape[0]) for side in (block if isinstance(block, tuple) else (block,)))


def examples_of(block: Block) -> int:
    """How many a block is of."""
    return int((block[0] if isinstance(block, tuple) else block).shape[1])


def examples_between(block: Block, start: int, stop: int) -> Block:
    """What of a block is of examples start … stop-1."""
    if isinstance(block, tuple):
        left, right = (side[:, start:stop, ...] for side in block)
        return left, right
    return block[:, start:stop, ...]


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
    return paired(xp, gram_of_side(xp, a, b, 0), gram_of_side(xp, a, b, 1))


def gram_of_side(xp: ModuleType, a: tuple[Array, Array], b: tuple[Array, Array], side: int) -> Array:
    """Inner products (k, n, S, k', n', S') of the left or the right factors of two blocks."""
    if side == 0 and _looked_up(a):
        return a[0][..., None, None, None] == b[0]
    return gram(xp, a[side], b[side])


def paired(xp: ModuleType, first: Array, second: Array) -> Array:
    """Products (k, n, k', n') of blocks, from the inner products of their left and of their right factors."""
    both = xp.astype(first, second.dtype, copy=False) * second
    return both[:, :, 0, :, :, 0] if both.shape[2] == both.shape[5] == 1 else xp.sum(both, axis=(2, 5))


def numbers_on_the_way(left: Block, right: Block) -> int:
    """What `products` holds at least, of the result, Gram matrices over positions, and one column's rows."""
    result = math.prod(cotangents_of(block) * examples_of(block) for block in (left, right))
    if not isinstance(left, tuple) or not isinstance(right, tuple):
        return result
    if through_rows(left, right):
        columns = [cotangents_of(b) * examples_of(b) * min(int(side.shape[3]) for side in b) for b in (left, right)]
        return max(result, *columns)
    return int(result * left[1].shape[2] * right[1].shape[2])


class Turned(NamedTuple):
    """Factors as rows are made from them: (n, k, q, S), and (n, k, S, p) whose columns may be taken a few at a time."""

    whole: Array
    columns: Array

    def piece(self, start: int, stop: int) -> Turned:
        """With a few of the columns."""
        return Turned(self.whole, self.columns[..., start:stop])


def through_rows(left: Block, right: Block) -> bool:
    """Whether the products of two blocks in factors are those of rows made from them."""
    both = isinstance(left, tuple) and isinstance(right, tuple)
    return both and not _looked_up(left) and not _factored_pays(left, right)


def turned(xp: ModuleType, block: tuple[Array, Array]) -> Turned:
    """The factors of a block; the one with columns is rather one that depends on no cotangent."""
    columns = 1 if block[1].shape[0] < block[0].shape[0] else 0
    whole = xp.permute_dims(block[1 - columns], (1, 0, 3, 2))
    n, k, q, positions = whole.shape
    laid_out = xp.reshape(whole, (n, k * q, positions))  # here, and not again for each of the pieces
    return Turned(xp.reshape(laid_out, (n, k, q, positions)), xp.permute_dims(block[columns], (1, 0, 2, 3)))


def in_pieces(a: Turned, b: Turned, most: int = 2 * PIECE) -> Iterator[tuple[Turned, Turned]]:
    """Both with the same few columns at a time, so that rows of them have about `PIECE` numbers, and at most `most`.

    They are the same object where a and b are.
    """
    each = [
        turn.whole.shape[0] * max(turn.whole.shape[1], turn.columns.shape[1]) * turn.whole.shape[2] for turn in (a, b)
    ]
    count, each_column = int(a.columns.shape[3]), int(max(each))
    pieces = -(-count // max(1, min(PIECE, most) // each_column))
    aligned = -(-count // (pieces * ALIGNED)) * ALIGNED
    width = aligned if aligned * each_column <= most else -(-count // pieces)
    for start in range(0, count, width):
        own = a.piece(start, start + width)
        yield own, own if a is b else b.piece(start, start + width)


def turned_products(xp: ModuleType, a: Turned, b: Turned) -> Array:
    """⟨g_i, g'_j⟩ (k, n, k', n') through rows of all columns."""
    rows = _made(xp, a)
    return xp.permute_dims(gram(xp, rows, rows if a is b else _made(xp, b)), (1, 0, 3, 2))


def _made(xp: ModuleType, turn: Turned) -> Array:
    """Rows (n, k, q·p); one product for all cotangents where the columns are the same for them."""
    n, k, q, positions = turn.whole.shape
    if turn.columns.shape[1] == 1:
        return xp.reshape(xp.reshape(turn.whole, (n, k * q, positions)) @ turn.columns[:, 0, ...], (n, k, -1))
    return xp.reshape(turn.whole @ turn.columns, (n, turn.columns.shape[1], -1))


def gram(xp: ModuleType, left: Array, right: Array) -> Array:
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
    if array_api_compat.is_jax_namespace(xp):
        strips = min(COPIED_STRIPS, count // COPIED_TILE)
    else:
        strips = min(STRIPS, max(count // TILE, min(2, count // THIN)))
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
