"""Kernels in tiles of examples: how large, in which order, and each tile.

Rows of tiles go in stripes. The gradients of a stripe's examples are made once and kept, while those of the columns are
made, used for every tile of the stripe, and dropped. So with stripes of R of N examples the gradients are made about
N/(2R) times for the symmetric half of a kernel, and once where one stripe holds all. What a tile holds to the last bit
depends on its own size and on `Plan.most` alone, and not on the stripes, so that it can be made again by anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..linearization import Array, InvalidValueError
from ..memory import size_text
from ..tangents import Groups
from .contraction import Block
from .finite import check_finite
from .groups import group_kernels
from .images import Images, Range
from .reductions import Reduction

STORED = 2**25
"""Bytes of a tile that goes to a store: enough for fast products, little enough to be lost."""

WORK = 4
"""Arrays of the size of a tile alive beside the kernels' own: the last product, and it rearranged, or copied."""

Place = tuple[int, int]
"""Row and column of a tile."""


@dataclass(frozen=True)
class Cost:
    """Bytes that decide how large tiles can be."""

    example: int
    """Of the gradients of one example, for all cotangents."""
    entry: int
    """Of what one pair of examples has in the kernel."""
    item: int
    """Of a number."""
    kernels: int
    """How many there are: one, or one a layer."""


@dataclass(frozen=True)
class Plan:
    """Tiles of an N × N' kernel."""

    shape: tuple[int, int]
    """N, N'."""
    symmetric: bool
    tile: int
    """Examples on the side of a tile; less at the end."""
    most: int
    """Numbers that a product may hold on its way."""
    stripe: int
    """Rows of tiles whose gradients are kept together."""

    def ranges(self, side: int) -> list[Range]:
        """The examples of each row (side 0) or column (1) of tiles."""
        count = self.shape[side]
        return [(start, min(start + self.tile, count)) for start in range(0, count, self.tile)]

    def stripes(self) -> list[range]:
        """The rows of tiles of each stripe."""
        rows = len(self.ranges(0))
        return [range(start, min(start + self.stripe, rows)) for start in range(0, rows, self.stripe)]

    def columns(self, rows: range) -> range:
        """The columns of tiles that a stripe has."""
        return range(rows.start if self.symmetric else 0, len(self.ranges(1)))

    def images(self, place: Place) -> list[Place]:
        """Where a tile stands: there, and for one above the diagonal of a symmetric kernel turned below it."""
        i, j = place
        return [place] if i == j or not self.symmetric else [place, (j, i)]

    def laid(self, place: Place, tile: Any) -> list[tuple[Place, Any]]:
        """Those places, and what is there of a tile."""
        return list(zip(self.images(place), (tile, tile.T), strict=False))

    def places(self) -> list[Place]:
        """All tiles; of a symmetric kernel those on and above the diagonal."""
        return [
            (i, j) for i in range(len(self.ranges(0))) for j in range(i if self.symmetric else 0, len(self.ranges(1)))
        ]


def planned(
    shape: tuple[int, int], symmetric: bool, cost: Cost, memory: int, stored: bool, fixed: tuple[int, int] | None = None
) -> Plan:
    """Tiles that fit the budget: 4/16 for a tile, 3 for products, 3 for a column's gradients, and 6 for a stripe's.

    `fixed` has the tile and `most` of a kernel that was begun; then only the stripes are chosen.

    Raises
    ------
    InvalidValueError
        Not even a pair of examples fits.
    """
    longest = max(shape)
    if fixed is None:
        area = memory // (4 * cost.entry * (cost.kernels + WORK))
        if stored:
            area = min(area, max(1, STORED // cost.entry))
        side = min(math.isqrt(area), _fitting(cost.example, memory), longest)
        if side < 1:
            need = max(4 * cost.entry * (cost.kernels + WORK), 11 * cost.example)
            raise InvalidValueError(
                f"memory={memory} bytes do not hold what a pair of examples needs; give memory={size_text(need)!r} or "
                "more, or fewer outputs (outputs='sum')"
            )
        tile = -(-longest // -(-longest // side))
        most = max(1, memory // (16 * cost.item))
    else:
        tile, most = fixed
    stripe = max(1, 3 * memory // (8 * cost.example * tile))
    return Plan(shape, symmetric, tile, most, stripe)


def roomy(example: int, count: int, memory: int) -> bool:
    """Whether the gradients of `count` examples, `example` bytes each, do not keep tiles from being that large."""
    return _fitting(example, memory) >= count


def _fitting(example: int, memory: int) -> int:
    """Examples of a tile whose gradients fit into half of a column's part of the budget."""
    return 3 * memory // (32 * example)


@dataclass(frozen=True)
class Work:
    """What is computed: kernels between two sides, or of one with itself, in groups of parameters."""

    xp: Any
    sides: tuple[Images, ...]
    wanted: Reduction
    groups: Groups
    plan: Plan

    def tiles(
        self,
        rows: range,
        columns: range,
        kept: dict[int, tuple[Block, ...]],
        finished: Callable[[Place], bool] = lambda place: False,
    ) -> Iterator[tuple[Place, list[Array]]]:
        """Tiles of a stripe that are not `finished`, column by column: (n·k, n'·k) or (n, n') for each group.

        `kept` holds the gradients of rows of tiles that are there already, and takes up those that are made.

        Raises
        ------
        NonFiniteError
        """
        plan, ranges = self.plan, (self.plan.ranges(0), self.plan.ranges(1))
        places = {j: [(i, j) for i in rows if (i <= j or not plan.symmetric) and not finished((i, j))] for j in columns}
        needed = sorted({i for column in places.values() for i, _ in column} - kept.keys())
        kept.update(zip(needed, self.sides[0].sweep([ranges[0][i] for i in needed]), strict=True))
        own = kept if plan.symmetric else {}
        late = [j for j, column in places.items() if column and j not in own]
        rights = self.sides[-1].sweep([ranges[1][j] for j in late])
        for j, column in places.items():
            right = own[j] if j in own else next(rights) if column else ()
            for place in column:
                left = kept[place[0]]
                found = self.tile(left, right)
                check_finite(self.xp, found, ((ranges[0][place[0]], left), (ranges[1][j], right)))
                yield place, found
            del right

    def tile(self, left: tuple[Block, ...], right: tuple[Block, ...]) -> list[Array]:
        """One tile, for each group."""
        J, wanted = self.sides[0].J, self.wanted
        return group_kernels(J, left, right, self.groups, wanted.full, len(wanted.cotangents), self.plan.most)
