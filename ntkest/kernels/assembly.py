"""A kernel in memory, from its tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from array_api_compat import is_writeable_array

from ..linearization import Array, device
from .tiles import Place, Plan, Work


def assembled(work: Work, dtype: Any, report: Callable[[int, int], None]) -> list[Array]:
    """The kernels of all groups, in `dtype`; in place where arrays can be written to."""
    xp, plan = work.xp, work.plan
    places = plan.places()
    whole: list[Any] = [None] * work.groups.count
    pieces: list[dict[Place, Array]] = [{} for _ in whole]
    done = 0
    for rows in plan.stripes():
        for place, tiles in work.tiles(rows, plan.columns(rows), {}):
            tiles = [xp.astype(tile, dtype, copy=False) for tile in tiles]
            if len(places) == 1:
                whole = tiles
            elif is_writeable_array(tiles[0]):
                side = entries_each(tiles[0], place, plan)
                for index, tile in enumerate(tiles):
                    if whole[index] is None:
                        shape = tuple(count * side for count in plan.shape)
                        whole[index] = xp.empty(shape, dtype=dtype, device=device(tile))
                    for (i, j), part in plan.laid(place, tile):
                        rows_, columns = (slice(n * plan.tile * side, (n + 1) * plan.tile * side) for n in (i, j))
                        whole[index][rows_, columns] = part
            else:
                for own, tile in zip(pieces, tiles, strict=True):
                    own.update(plan.laid(place, tile))
            done += 1
            report(done, len(places))
    return [_concatenated(xp, own, plan) if own else kernel for own, kernel in zip(pieces, whole, strict=True)]


def entries_each(tile: Array, place: Place, plan: Plan) -> int:
    """Rows of the kernel that one example has: O for a full one, else 1."""
    start, stop = plan.ranges(0)[place[0]]
    return int(tile.shape[0]) // (stop - start)


def _concatenated(xp: Any, pieces: dict[Place, Array], plan: Plan) -> Array:
    counts = [len(plan.ranges(side)) for side in (0, 1)]
    rows = [xp.concat([pieces[i, j] for j in range(counts[1])], axis=1) for i in range(counts[0])]
    return xp.concat(rows, axis=0)
