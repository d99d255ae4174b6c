"""Parameter-side block vectors: which blocks make a layer, inner products, and norms.

A batch of k parameter vectors is a tuple of arrays (k, P_l). Nothing is flattened to (k, P): inner products are sums
over blocks, so layers come apart for free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from .linearization import Array, Blocks, InvalidValueError, accumulator, row_products, scalar_dtype, slices

ROW_BY_ROW = 2**12
"""From this many columns on, norms go row by row: one-dimensional products need no temporary of the block's size."""

MOST_ROWS = 32
"""Past this many rows norms go slice by slice instead: unrolled row by row, a traced program compiles for minutes."""


@dataclass(frozen=True)
class Groups:
    """Parts of the parameters that are reported side by side: none, one a layer, or one a parameter."""

    names: tuple[str, ...]
    """One name a part; empty when only the whole is wanted."""
    part_of: tuple[int, ...]
    """For each parameter block the part that it belongs to."""

    @property
    def count(self) -> int:
        """The number of parts, 1 when only the whole is wanted."""
        return max(1, len(self.names))

    def blocks(self, part: int) -> frozenset[int]:
        """Indices of the blocks of a part."""
        return frozenset(block for block, owner in enumerate(self.part_of) if owner == part)


def group_parameters(names: Sequence[str], by: str | None) -> Groups:
    """Parts of parameters with these dotted names.

    ``by="layer"`` puts together what shares everything before the last dot ("0.weight" and "0.bias" make
    "0"); a name without a dot is a layer of its own. ``by="parameter"`` keeps every block apart.
    """
    if by is None:
        return Groups((), (0,) * len(names))
    if by == "parameter":
        return Groups(tuple(names), tuple(range(len(names))))
    if by != "layer":
        raise InvalidValueError(f"by= takes None, 'layer' or 'parameter', not {by!r}")
    owners = [name.rpartition(".")[0] or name for name in names]
    layers = tuple(dict.fromkeys(owners))
    return Groups(layers, tuple(layers.index(owner) for owner in owners))


def join(xp: ModuleType, old: Blocks | None, new: Blocks) -> Blocks:
    """Rows of both, block by block."""
    return new if old is None else tuple(xp.concat(pair, axis=0) for pair in zip(old, new, strict=True))


@dataclass(frozen=True)
class SquareNorms:
    """Maps images, blocks (c, P_l) or one array (c, M), to their squared norms by part, (c, parts).

    A block may be in factors; see `ntkest.linearization.ExampleGradients`.
    """

    xp: ModuleType
    part_of: tuple[int, ...]
    parts: int

    def __call__(self, images: Blocks | Array) -> Array:
        """Squared norms of a chunk of images."""
        blocks = images if isinstance(images, tuple) else (images,)
        total = accumulator(self.xp, _first(blocks[0]))
        pieces: list[list[Array]] = [[] for _ in range(self.parts)]
        for block, part in zip(blocks, self.part_of, strict=True):
            pieces[part].append(
                _factored_norms(self.xp, block) if isinstance(block, tuple) else _square_norms(self.xp, block)
            )
        wide = (self.xp.astype(self.xp.concat(columns, axis=1), total) for columns in pieces)
        return self.xp.stack([self.xp.sum(columns, axis=1) for columns in wide], axis=1)


@dataclass(frozen=True)
class Gram:
    """Maps two batches of images with a and b rows to their inner products by part, (parts, a, b).

    Blocks may have more axes in front, (…, a, P_l) and (…, b, P_l): these are matched, and give (parts, …, a, b).
    They may be in factors; see `ntkest.linearization.ExampleGradients`.
    """

    xp: ModuleType
    part_of: tuple[int, ...]
    parts: int

    def __call__(self, left: Blocks | Array, right: Blocks | Array) -> Array:
        """Inner products ⟨left_i, right_j⟩ by part."""
        lefts = left if isinstance(left, tuple) else (left,)
        rights = right if isinstance(right, tuple) else (right,)
        sums: list[Array | None] = [None] * self.parts
        for a, b, part in zip(lefts, rights, self.part_of, strict=True):
            product = _factored_products(self.xp, a, b) if isinstance(a, tuple) else row_products(self.xp, a, b)
            so_far = sums[part]
            sums[part] = product if so_far is None else so_far + product
        return self.xp.stack(sums, axis=0)


def _square_norms(xp: ModuleType, block: Array) -> Array:
    """(c, n) to (c, slices), whose sums are the squared norms, in the block's dtype, at least float32."""
    working = scalar_dtype(xp, block)
    if block.shape[1] < ROW_BY_ROW:
        wide = xp.astype(block, working, copy=False)
        return xp.sum(wide * wide, axis=1, keepdims=True)
    cuts = slices(block.shape[1])
    if block.shape[0] > MOST_ROWS:
        parts = (xp.astype(block[:, s], working, copy=False) for s in cuts)
        return xp.stack([xp.sum(part * part, axis=1) for part in parts], axis=1)
    products: list[Array] = []
    for row in range(block.shape[0]):
        line = xp.astype(block[row, :], working, copy=False)
        products.extend(part @ part for part in (line[s] for s in cuts))  # vecdot makes a temporary in torch
    return xp.reshape(xp.stack(products, axis=0), (block.shape[0], len(cuts)))


def _factored_norms(xp: ModuleType, factors: tuple[Array, Array]) -> Array:
    """Factors (c, S, p), (c, S, q) of images Σ_s left_s ⊗ right_s to squared norms (c, 1), without the images."""
    left, right = (xp.astype(side, scalar_dtype(xp, side), copy=False) for side in factors)
    if left.shape[1] == 1:
        squares = [xp.sum(side * side, axis=2) for side in (left, right)]
    else:
        squares = [side @ xp.matrix_transpose(side) for side in (left, right)]  # (c, S, S)
    product = squares[0] * squares[1]
    return xp.reshape(xp.sum(xp.reshape(product, (product.shape[0], -1)), axis=1), (-1, 1))


def _factored_products(xp: ModuleType, left: tuple[Array, Array], right: tuple[Array, Array]) -> Array:
    """Inner products (…, a, b) of images in factors: Σ_st ⟨l_as, l'_bt⟩ ⟨r_as, r'_bt⟩."""
    both = None
    for mine, other in zip(left, right, strict=True):
        *lead, a, s, width = mine.shape
        b, t = other.shape[-3:-1]
        product = row_products(xp, xp.reshape(mine, (*lead, a * s, width)), xp.reshape(other, (*lead, b * t, width)))
        both = product if both is None else both * product
    return xp.sum(xp.reshape(both, (*lead, a, s, b, t)), axis=(-3, -1))


def _first(block: Array | tuple[Array, Array]) -> Array:
    return block[0] if isinstance(block, tuple) else block
