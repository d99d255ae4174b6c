"""Qᵀφ of gradients in factors, φ = Σ_s left_s ⊗ right_s, without their rows.

As a matrix Q_j (p, q) a column of Q gives Σ_s left_sᵀ Q_j right_s. One factor of a layer, its inputs, is common to all
outputs of an example. It is multiplied with a tile of Q once, and what comes of that is contracted with the cotangents
of each output: S·p·q multiplications for each column and example, where rows take O·p·q.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..kernels.contraction import Block, cotangents_of, examples_of
from ..linearization import Array
from ..threads import Range
from .matrices import GROUP
from .pieces import left_part, looked_up, rows_of, spans
from .sketches import STRIP, DenseSketch, strips

WAY = 2**13
"""Numbers for each position of each example that the products with a tile have, at least of a group of columns."""


def common_side(block: Block) -> int | None:
    """Which factor is the same for all cotangents, 0 or 1; None if neither is, or there are no factors."""
    if not isinstance(block, tuple):
        return None
    return next((side for side in (1, 0) if block[side].shape[0] == 1), None)


def multiplications(block: Block, size: int, dim: int) -> tuple[float, float]:
    """Of both ways to project a block of `size` numbers an example to `dim`: through its rows, and in factors."""
    k, n = cotangents_of(block), examples_of(block)
    through_rows, side = float(k * n * size * dim), common_side(block)
    if not isinstance(block, tuple):
        return through_rows, float("inf")
    positions, q = (int(length) for length in block[1].shape[2:])
    if looked_up(block):
        size = q * sum(stop - start for start, stop in spans(block, size // q, 1))
        through_rows = float(k * n * size * dim)
    through_rows += k * n * positions * size
    if side is None:
        return through_rows, float("inf")
    own = size // q if side == 1 else q
    return through_rows, float(n * positions * dim * (size + k * own))


def on_the_way(block: Block, tile: int) -> int:
    """Numbers an example that `add_factored` holds, with tiles of so many."""
    assert isinstance(block, tuple)
    positions, q = (int(length) for length in block[1].shape[2:])
    k, left = cotangents_of(block), _inputs_left(block)
    inner = max(GROUP * q if left else STRIP, min(WAY, tile))
    return positions * (2 * inner + (k * q if left else k * inner // GROUP)) + 2 * k * STRIP


def add_factored(sketch: DenseSketch, block: Block, index: int, size: int) -> None:
    """Add block number `index`, which has a common factor, of `size` numbers an example."""
    add = _inputs_left_share if _inputs_left(block) else _inputs_right_share
    assert isinstance(block, tuple)
    left, right = (side if looked_up((side, block[1])) else sketch.cast(side) for side in block)
    most = min(WAY, sketch.tile) if _inputs_left(block) else sketch.tile
    for strip, columns in enumerate(sketch.strips):
        narrow = most // int(right.shape[3])
        shares = [add(sketch, (left, right), index, size, part) for part in strips(columns, narrow)]
        sketch.put(strip, _joined(sketch.xp, shares, rows_of(block)))


def _inputs_left(block: Block) -> bool:
    return looked_up(block) or common_side(block) == 0


def _inputs_right_share(
    sketch: DenseSketch, block: tuple[Array, Array], index: int, size: int, columns: Range
) -> Array:
    """Inputs (1, n, S, q) with tiles (a, q, c) of Q, then cotangents (k, n, S, a) with that: (k, n, c)."""
    xp, (left, right) = sketch.xp, block
    n, positions, q = right.shape[1:]
    c = columns[1] - columns[0]
    flat = xp.reshape(right, (n * positions, q))
    total: Any = None
    for a in spans(block, size // q, max(1, min(sketch.tile // q, WAY) // c)):
        tile = xp.reshape(sketch.part(index, (a[0] * q, a[1] * q), columns, right), (-1, q, c))
        inner = xp.reshape(flat @ tile, (-1, n, positions, c))
        inner = xp.reshape(xp.permute_dims(inner, (1, 2, 0, 3)), (n, -1, c))
        share = _with_cotangents(xp, left[..., a[0] : a[1]], inner)
        total = share if total is None else total + share
    return total


def _inputs_left_share(sketch: DenseSketch, block: tuple[Array, Array], index: int, size: int, columns: Range) -> Array:
    """Inputs (1, n, S, a) with tiles (a, q·c) of Q, then cotangents (k, n, S, q) with the sum of that: (k, n, c)."""
    xp, right = sketch.xp, block[1]
    n, positions, q = right.shape[1:]
    c = columns[1] - columns[0]
    inner: Any = None
    for a in spans(block, size // q, max(1, sketch.tile // (q * c))):
        tile = xp.reshape(sketch.part(index, (a[0] * q, a[1] * q), columns, right), (-1, q * c))
        share = xp.reshape(left_part(xp, block, a), (n * positions, -1)) @ tile
        inner = share if inner is None else inner + share
    return _with_cotangents(xp, right, xp.reshape(inner, (n, positions * q, c)))


def _with_cotangents(xp: Any, own: Array, inner: Array) -> Array:
    """(k, n, S, a) and (n, S·a, c) to (k, n, c)."""
    k, n = own.shape[:2]
    own = xp.reshape(xp.permute_dims(own, (1, 0, 2, 3)), (n, k, -1))
    return xp.permute_dims(own @ inner, (1, 0, 2))


def _joined(xp: Any, shares: Sequence[Array], rows: int) -> Array:
    whole = shares[0] if len(shares) == 1 else xp.concat(list(shares), axis=2)
    return xp.reshape(whole, (rows, -1))
