"""Kernels of groups of parameter blocks from the gradients of two sets of examples, each block in a compiled step.

A layer applied at S positions with weight and bias has gradients Σ_s a_s ⊗ b_s and Σ_s 1 ⊗ b_s, which share the array
of the b_s. Together they are Σ_s [a_s, 1] ⊗ b_s, a weight with one more input, and cost one product of b's instead of
two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..linearization import Array
from ..tangents import Groups
from .bounded import bounded
from .contraction import (
    Block,
    Turned,
    examples_of,
    in_pieces,
    numbers_on_the_way,
    products,
    through_rows,
    turned,
    turned_products,
)
from .upper import Mirror, Spans, Upper, added, cut, spans_of, upper

MOST = 2**28
"""Numbers that a product may hold on its way."""

Pair = tuple[Block, Block]
"""The gradients of one block for both sets of examples; the same object twice for one set with itself."""


@dataclass(frozen=True)
class Step:
    """Adds the share of one block to a kernel: a compiled program, hashable by value."""

    xp: ModuleType
    full: bool
    """All pairs of cotangents, or the mean over equal ones."""
    cotangents: int

    def __call__(self, total: Array | None, left: Block, right: Block | None) -> Array:
        """(k, n, k', n') or (n, n'); `right` is None where it is the left."""
        other = left if right is None else right
        found = products(self.xp, left, other) if self.full else self._mean(left, other)
        return found if total is None else total + found

    def _mean(self, left: Block, right: Block) -> Array:
        total: Any = 0.0
        for i in range(self.cotangents):
            own = _of_cotangent(left, i)
            total = total + products(self.xp, own, own if left is right else _of_cotangent(right, i))[0, :, 0, :]
        return total / self.cotangents


@dataclass(frozen=True)
class Half:
    """Adds the share of one block to the upper half of a kernel; see `upper`."""

    xp: ModuleType
    spans: Spans

    def __call__(self, total: Upper | None, block: Block) -> Upper:
        """Strip by strip."""
        return added(total, upper(self.xp, block, self.spans))


@dataclass(frozen=True)
class Arrange:
    """A kernel (k, n, k', n') as (n·k, n'·k'), hashable by value."""

    xp: ModuleType

    def __call__(self, kernel: Array) -> Array:
        """Its rows and columns, k fastest."""
        k, n, others, there = kernel.shape
        return self.xp.reshape(self.xp.permute_dims(kernel, (1, 0, 3, 2)), (n * k, there * others))


@dataclass(frozen=True)
class Turn:
    """`turned`, hashable by value."""

    xp: ModuleType

    def __call__(self, left: Any, right: Any) -> tuple[Turned, Turned | None]:
        """Both blocks; `right` is None where it is the left."""
        return turned(self.xp, left), None if right is None else turned(self.xp, right)


@dataclass(frozen=True)
class Piece:
    """Adds the products of a few columns."""

    xp: ModuleType

    def __call__(self, total: Array | None, left: Turned, right: Turned | None) -> Array:
        """(k, n, k', n'); `right` is None where it is the left."""
        found = turned_products(self.xp, left, left if right is None else right)
        return found if total is None else total + found


def group_kernels(
    J: Any,
    left: Sequence[Block],
    right: Sequence[Block],
    groups: Groups,
    full: bool,
    cotangents: int,
    most: int = MOST,
) -> list[Array]:
    """For each group of parameters (n·k, n'·k), k fastest, or (n, n') for the mean over cotangents if not `full`.

    `left` and `right` are the same object for one set of examples with itself. No product holds more than `most`
    numbers on its way.
    """
    with getattr(J, "fast_products", nullcontext)():
        return [
            _kernel(J, [(left[i], right[i]) for i in sorted(groups.blocks(part))], full, cotangents, most)
            for part in range(groups.count)
        ]


def _kernel(J: Any, pairs: Sequence[Pair], full: bool, cotangents: int, most: int) -> Array:
    """The sum of the shares of blocks, those of the upper half apart from those of the whole."""
    xp, compiled = J.xp, _compiler(J)
    symmetric = full and all(a is b for a, b in pairs)
    spans = spans_of(xp, cotangents, examples_of(pairs[0][0])) if symmetric else ()
    whole: Any = None
    half: Upper | None = None
    for a, b in _merged(xp, pairs):
        if numbers_on_the_way(a, b) > most:
            share = bounded(xp, lambda a, b: _added(J, None, a, b, full, cotangents, most), a, b, most)
            whole = share if whole is None else whole + share
        elif spans and not through_rows(a, b):
            half = compiled(Half(xp, spans))(half, a)
        else:
            whole = _added(J, whole, a, b, full, cotangents, most)
    if half is None:
        return compiled(Arrange(xp))(whole) if full else whole  # type: ignore[no-any-return]
    return compiled(Mirror(xp, spans))(half if whole is None else added(half, cut(whole, spans)))  # type: ignore[no-any-return]


def _added(J: Any, total: Array | None, left: Any, right: Any, full: bool, cotangents: int, most: int) -> Array:
    """A kernel and the share of one block, in steps that are compiled where the backend does that."""
    compiled = _compiler(J)
    if not full or not through_rows(left, right):
        return compiled(Step(J.xp, full, cotangents))(total, left, None if left is right else right)
    a, b = compiled(Turn(J.xp))(left, None if left is right else right)
    for own, its in in_pieces(a, a if b is None else b, most):
        total = compiled(Piece(J.xp))(total, own, None if own is its else its)
    return total  # type: ignore[return-value]  # there is at least one column


def _compiler(J: Any) -> Callable[[Any], Callable[..., Any]]:
    return getattr(J, "compile", lambda step: step)


def _merged(xp: ModuleType, pairs: Sequence[Pair]) -> list[Pair]:
    """A block with a side one number wide is put with one that has the same other side."""
    found: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: _narrow(pair, 0) or _narrow(pair, 1)):  # wide ones first
        match = _match(found, pair)
        if match is None:
            found.append(pair)
        else:
            place, side = match
            found[place] = _beside(xp, found[place], pair, 1 - side)
    return found


def _match(found: Sequence[Pair], pair: Pair) -> tuple[int, int] | None:
    """Which of those found shares a side with a pair that is narrow on the other; and which side."""
    for side in (0, 1):
        if _narrow(pair, 1 - side):
            for place, other in enumerate(found):
                if _share(other, pair, side):
                    return place, side
    return None


def _narrow(pair: Pair, side: int) -> bool:
    return all(isinstance(b, tuple) and len(b[0].shape) == 4 and b[side].shape[3] == 1 for b in pair)


def _share(pair: Pair, other: Pair, side: int) -> bool:
    return all(
        isinstance(a, tuple) and isinstance(b, tuple) and a[side] is b[side] and len(a[0].shape) == 4
        for a, b in zip(pair, other, strict=True)
    )


def _beside(xp: ModuleType, pair: Pair, other: Pair, side: int) -> Pair:
    """One block whose factors on `side` are those of both."""

    def joined(a: Any, b: Any) -> Block:
        count = max(a[side].shape[0], b[side].shape[0])
        wide = xp.concat([xp.broadcast_to(x[side], (count, *x[side].shape[1:])) for x in (a, b)], axis=3)
        return (wide, a[1]) if side == 0 else (a[0], wide)

    first = joined(pair[0], other[0])
    return first, first if pair[0] is pair[1] else joined(pair[1], other[1])


def _of_cotangent(block: Block, i: int) -> Block:
    if isinstance(block, tuple):
        left, right = (_one(side, i) for side in block)
        return left, right
    return _one(block, i)


def _one(side: Array, i: int) -> Array:
    """The part of a cotangent; all have the same of what does not depend on it."""
    start = min(i, side.shape[0] - 1)
    return side[start : start + 1, ...]
