"""Inner products of the gradients of two sets of examples, block by block, by the cheaper of two ways.

A block of gradients comes as rows (k, n, P_l), or in factors (k, n, S, p) and (k, n, S, q) with gradients
Σ_s left_s ⊗ right_s, as a layer applied at S positions gives them. Of factors the products are
Σ_st ⟨left_s, left'_t⟩ ⟨right_s, right'_t⟩, for (S n)(S' n')(p + q) multiplications; or they are multiplied out first,
for n S p q, and the rows cost n n' p q.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..linearization import Array, unfactored
from ..tangents import Gram

Block = Array | tuple[Array, Array]
"""Rows, or factors."""


def products(xp: ModuleType, left: Block, right: Block) -> Array:
    """⟨g_i, g'_j⟩ (k, n, k', n') of one parameter block."""
    a, b = (_together(xp, side) for side in (left, right))
    if not (isinstance(a, tuple) and isinstance(b, tuple) and _factored_pays(a, b)):
        a, b = unfactored(xp, a), unfactored(xp, b)
    found = Gram(xp, (0,), 1)((a,), (b,))[0, ...]
    return xp.reshape(found, (*_leading(left), *_leading(right)))


def _factored_pays(a: tuple[Array, Array], b: tuple[Array, Array]) -> bool:
    rows, positions, p = a[0].shape
    others, there, q = b[0].shape[0], b[0].shape[1], a[1].shape[2]
    factored: int = rows * positions * others * there * (p + q)
    explicit = (rows * positions + others * there) * p * q + rows * others * p * q
    return bool(factored <= explicit)


def _together(xp: ModuleType, block: Block) -> Any:
    """With k and n in one axis."""
    if isinstance(block, tuple):
        left, right = (xp.reshape(side, (-1, *side.shape[2:])) for side in block)
        return left, right
    return xp.reshape(block, (-1, *block.shape[2:]))


def _leading(block: Block) -> tuple[int, ...]:
    return tuple((block[0] if isinstance(block, tuple) else block).shape[:2])
