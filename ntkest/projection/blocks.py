"""Features of examples from all blocks of their gradients, each by the cheaper of two ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels.contraction import Block, cotangents_of, examples_of
from ..kernels.images import item_bytes
from ..linearization import Array, Blocks
from .factored import add_factored, multiplications, on_the_way
from .matrices import Matrix
from .pieces import pieces
from .sketches import TILE, DenseSketch, Sketch, sketch
from .sparse import Sparse


@dataclass(frozen=True)
class Projection:
    """From gradients to features; hashable by value, so that adapters can call it on images of theirs."""

    xp: Any
    matrix: Matrix
    sizes: tuple[int, ...]
    """P_l of each block."""
    dtype: Any
    tile: int = TILE
    """Numbers of a tile of Q."""

    @property
    def item(self) -> int:
        """Bytes of a number of features."""
        return item_bytes(self.xp, self.xp.empty((0,), dtype=self.dtype))

    def __call__(self, images: Blocks) -> Array:
        """Images (r, P_l), or factors (r, S, …), of r pairs of a cotangent and an example, to features (r, dim)."""
        blocks = [tuple(a[None, ...] for a in b) if isinstance(b, tuple) else b[None, ...] for b in images]
        return self.features(blocks)[0, ...]

    def features(self, blocks: Sequence[Block]) -> Array:
        """Blocks (k, n, P_l), or factors (k, n, S, …), to features (k, n, dim)."""
        made = self._begun()
        for index, (block, size) in enumerate(zip(blocks, self.sizes, strict=True)):
            if isinstance(made, DenseSketch) and in_factors(block, size, self.matrix.dim):
                add_factored(made, block, index, size)
            else:
                for piece, start in pieces(self.xp, block, size, made.width):
                    made.add(piece, index, start)
        k, n = max(map(cotangents_of, blocks)), examples_of(blocks[0])
        return self.xp.reshape(made.result(), (k, n, self.matrix.dim))

    def held(self, blocks: Sequence[Block] | None = None) -> int:
        """Numbers for each row of gradients while it is projected, beside it; of blocks (k, 1, …) if they are known."""
        made, most = self._begun(), 0
        if blocks is not None and isinstance(made, DenseSketch):
            k = max(map(cotangents_of, blocks))
            factored = (b for b, size in zip(blocks, self.sizes, strict=True) if in_factors(b, size, self.matrix.dim))
            most = max((-(-on_the_way(block, self.tile) // k) for block in factored), default=0)
        return 2 * self.matrix.dim + max(made.held(max(self.sizes)), most)

    def multiplications(self, blocks: Sequence[Block]) -> float:
        """How many the features of these blocks take."""
        total = 0.0
        for block, size in zip(blocks, self.sizes, strict=True):
            through_rows, factored = multiplications(block, size, self.matrix.entries)
            total += through_rows if isinstance(self.matrix, Sparse) else min(through_rows, factored)
        return total

    def multiplications_of_rows(self, count: int) -> float:
        """How many the features of so many gradients take that come as rows."""
        return float(count * sum(self.sizes) * self.matrix.entries)

    def _begun(self) -> Sketch:
        return sketch(self.xp, self.matrix, self.dtype, self.tile)


def in_factors(block: Block, size: int, dim: int) -> bool:
    """Whether a dense projection of a block takes fewer multiplications in factors than through rows."""
    through_rows, factored = multiplications(block, size, dim)
    return factored < through_rows
