"""Inner products of long rows: slice after slice, or the way that an adapter has found for its arrays.

Rows of a million numbers are too long for any cache. They are multiplied in slices, in their own dtype, and the slices'
products are added in the accumulator's. How fast that is depends on what a framework makes of it, so that an adapter
may replace it for its namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

from .precision import accumulator, scalar_dtype
from .protocol import Array

SLICE = 2**15
"""Columns that are multiplied in their own dtype before the sum goes on in the accumulator's."""

MOST_SLICES = 64
"""Past this many slices rows are cut into larger ones, to keep traced programs small."""

SYMMETRIC_FROM = 128
"""From this many rows on, half of a Gram matrix is worth two smaller products."""

RowProducts = Callable[[Array, Array], Array]
"""Rows (a, n) and (b, n) to their inner products (a, b), as `sliced_products` has them; `left is right` if they are."""

_ways: dict[ModuleType, RowProducts] = {}


def provide_row_products(xp: ModuleType, products: RowProducts) -> None:
    """Have all products of long rows of this namespace made by `products`; for adapters."""
    _ways[xp] = products


def row_products(xp: ModuleType, left: Array, right: Array) -> Array:
    """Rows (…, a, n) and (…, b, n) to (…, a, b), in the precisions of `sliced_products`."""
    way = _ways.get(xp) if left.ndim == right.ndim == 2 else None
    return sliced_products(xp, left, right) if way is None else way(left, right)


def sliced_products(xp: ModuleType, left: Array, right: Array) -> Array:
    """The same in every namespace: products in the rows' dtype, at least float32, and sums in the accumulator's."""
    rows = left.shape[-2]
    if left is right and left.ndim == 2 and rows >= SYMMETRIC_FROM:
        first, second = left[: rows // 2, :], left[rows // 2 :, :]
        across = sliced_products(xp, first, second)
        above = xp.concat([sliced_products(xp, first, first), across], axis=1)
        return xp.concat([above, xp.concat([across.T, sliced_products(xp, second, second)], axis=1)], axis=0)
    total, working = accumulator(xp, left), scalar_dtype(xp, left)
    parts = []
    for s in slices(left.shape[-1]):
        a, b = xp.astype(left[..., s], working, copy=False), xp.astype(right[..., s], working, copy=False)
        parts.append(xp.astype(a @ xp.matrix_transpose(b), total))
    return _add(parts)


def slices(size: int) -> list[slice]:
    """Cuts of `size` columns, at least one."""
    width = max(SLICE, -(-size // MOST_SLICES))
    return [slice(start, min(start + width, size)) for start in range(0, max(size, 1), width)]


def _add(parts: Sequence[Array]) -> Array:
    """Pairwise sum, which keeps float32's digits where there is no float64."""
    terms = list(parts)
    while len(terms) > 1:
        terms = [terms[i] + terms[i + 1] if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
    return terms[0]
