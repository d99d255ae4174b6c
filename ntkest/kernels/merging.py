"""Blocks whose gradients share a left factor, as one: a weight and its bias, for which it is the output cotangents.

Σ_s left_s ⊗ right_s and Σ_s left_s ⊗ right'_s have together the products of left with (right, right'), so that the Gram
matrix of the common factor is made once for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from .contraction import Block


def sharing(sides: Sequence[Sequence[Block]], parts: Sequence[int]) -> list[list[int]]:
    """Runs of consecutive blocks that share the left factor, the very array, on all sides, and belong to one part."""
    runs = [[0]]
    for index in range(1, len(parts)):
        together = parts[index] == parts[index - 1]
        if together and all(_share(blocks[index - 1], blocks[index]) for blocks in sides):
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def merged(xp: ModuleType, blocks: Sequence[Block], runs: Sequence[Sequence[int]]) -> list[Block]:
    """One block for each run: right factors (k or 1, n, S, q) side by side."""
    return [
        blocks[run[0]] if len(run) == 1 else (blocks[run[0]][0], xp.concat([blocks[i][1] for i in run], axis=3))
        for run in runs
    ]


def _share(one: Block, two: Block) -> bool:
    """Not with integers for a left factor: those stand for rows of one table."""
    both = isinstance(one, tuple) and isinstance(two, tuple)
    return bool(both and one[0] is two[0] and one[0].ndim == 4 and one[1].shape[:-1] == two[1].shape[:-1])
