"""Products of gradients by halves of the examples, where all at once would hold too many numbers on their way."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from ..linearization import Array
from .contraction import Block, examples_between, examples_of, numbers_on_the_way

Multiply = Callable[[Block, Block], Array]
"""Products (k, n, k', n') or (n, n'); both arguments are the same object for a block with itself."""


def bounded(xp: ModuleType, multiply: Multiply, left: Block, right: Block, most: int) -> Array:
    """`multiply`, so that no product holds more than `most` numbers on its way; symmetric halves are made once."""
    n, there = examples_of(left), examples_of(right)
    if max(n, there) == 1 or numbers_on_the_way(left, right) <= most:
        return multiply(left, right)
    if left is right:
        first, second = _split(left)
        above = bounded(xp, multiply, first, second, most)
        own = [bounded(xp, multiply, half, half, most) for half in (first, second)]
        full = len(above.shape) == 4
        mirrored = xp.permute_dims(above, (2, 3, 0, 1)) if full else above.T
        rows, columns = (1, 3) if full else (0, 1)
        upper, lower = xp.concat([own[0], above], axis=columns), xp.concat([mirrored, own[1]], axis=columns)
        return xp.concat([upper, lower], axis=rows)
    if n >= there:
        halves = [bounded(xp, multiply, half, right, most) for half in _split(left)]
        return xp.concat(halves, axis=1 if len(halves[0].shape) == 4 else 0)
    halves = [bounded(xp, multiply, left, half, most) for half in _split(right)]
    return xp.concat(halves, axis=-1)


def _split(block: Block) -> tuple[Block, Block]:
    """The first half of the examples, and the others."""
    count = examples_of(block)
    return examples_between(block, 0, count // 2), examples_between(block, count // 2, count)
