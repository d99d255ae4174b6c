"""Gradients of examples as rows, some columns at a time, from rows or from factors.

A block of gradients is (k, n, P_l), or a pair of factors (k, n, S, p) and (k, n, S, q) whose rows are Σ_s left_s ⊗
right_s; integers (1, n, S) in place of the left factor are unit vectors. See `ntkest.kernels.contraction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..kernels.contraction import Block, cotangents_of, examples_of
from ..linearization import Array, beside, numbers
from ..threads import Range


def looked_up(block: Block) -> bool:
    """Whether the left factor is integers."""
    return isinstance(block, tuple) and len(block[0].shape) < len(block[1].shape)


def rows_of(block: Block) -> int:
    """k·n."""
    return cotangents_of(block) * examples_of(block)


def pieces(xp: Any, block: Block, size: int, width: int) -> Iterator[tuple[Array, int]]:
    """Rows (k·n, r) of r ≤ `width` of the block's `size` numbers, and where these start. Zeros may be left out."""
    if not isinstance(block, tuple):
        for start in range(0, size, width):
            yield xp.reshape(block[..., start : min(start + width, size)], (rows_of(block), -1)), start
        return
    q = int(block[1].shape[3])
    for a in spans(block, size // q, max(1, width // q)):
        left = left_part(xp, block, a)
        for start in range(0, q, width):
            right = block[1][..., start : min(start + width, q)]
            yield xp.reshape(outer(xp, left, right), (rows_of(block), -1)), a[0] * q + start


def outer(xp: Any, left: Array, right: Array) -> Array:
    """Σ_s left_s ⊗ right_s, (k, n, p, q).

    A factor that all cotangents share is multiplied with those of all at once: broadcast, it would be copied for each.
    """
    (k, n, positions, p), (common, *_, q) = left.shape, right.shape
    if positions == 1:
        return left[:, :, 0, :, None] * right[:, :, 0, None, :]
    if common == 1 < k:
        own = xp.reshape(xp.permute_dims(left, (1, 0, 3, 2)), (n, k * p, positions))
        return xp.permute_dims(xp.reshape(own @ right[0, ...], (n, k, p, q)), (1, 0, 2, 3))
    if k == 1 < common:
        own = xp.reshape(xp.permute_dims(right, (1, 2, 0, 3)), (n, positions, common * q))
        shared = xp.matrix_transpose(left[0, ...]) @ own
        return xp.permute_dims(xp.reshape(shared, (n, p, common, q)), (2, 0, 1, 3))
    return xp.matrix_transpose(left) @ right


def spans(block: Block, p: int, most: int) -> list[Range]:
    """The left indices in ranges of at most `most`; only those that occur, where they were looked up."""
    if not looked_up(block):
        return [(start, min(start + most, p)) for start in range(0, p, most)]
    found: list[Range] = []
    for index in np.unique(numbers(block[0]).astype(int)).tolist():
        if found and index < found[-1][0] + most:
            found[-1] = found[-1][0], index + 1
        else:
            found.append((index, index + 1))
    return found


def left_part(xp: Any, block: Block, span: Range) -> Array:
    """A range of the left factor's p, (k, n, S, p')."""
    left, right = block
    if not looked_up(block):
        return left[..., span[0] : span[1]]
    places = beside(xp, np.arange(*span), left)
    return xp.astype(left[..., None] == places, right.dtype)
