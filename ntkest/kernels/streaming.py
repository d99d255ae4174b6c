"""Kernels computed into a store, from the start or from where it was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..linearization import host
from .posing import FORMAT, Question, mismatch
from .store import Kind, Place, Store, begun, create, filled
from .tiles import Cost, Plan, Work, planned


@dataclass(frozen=True)
class Tiles:
    """The tiles of a plan as chunks: those above the diagonal of a symmetric kernel fill one below it, too."""

    plan: Plan
    each: int
    """Rows of the kernel for one example."""

    def arrays(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See `Layout.arrays`."""
        side = self.plan.tile * self.each
        return tuple(count * self.each for count in self.plan.shape), (side, side)

    def places(self) -> list[Place]:
        """See `Layout.places`."""
        return self.plan.places()

    def images(self, place: Place) -> list[Place]:
        """See `Layout.images`."""
        return self.plan.images(place)

    def laid(self, place: Place, tile: Any) -> list[tuple[Place, Any]]:
        """See `Layout.laid`."""
        return self.plan.laid(place, tile)

    def sums(self, place: Place, tiles: Sequence[np.ndarray]) -> dict[str, list[float]]:
        """Traces of tiles on the diagonal of a symmetric kernel, and squared Frobenius norms, in float64."""
        diagonal = self.plan.symmetric and place[0] == place[1]
        return {
            "trace": [float(np.trace(tile, dtype=np.float64)) if diagonal else 0.0 for tile in tiles],
            "square": [_square(tile) * len(self.plan.images(place)) for tile in tiles],
        }


def _tiles(about: Mapping[str, Any]) -> Tiles:
    return Tiles(Plan(tuple(about["shape"]), about["symmetric"], about["tile"], about["most"], 1), about["each"])


KERNEL = Kind("kernel", FORMAT, _tiles, ("trace", "square"))


def begin(path: Path, about: Mapping[str, Any], cost: Cost, memory: int, force: bool) -> tuple[Store, Plan]:
    """The store at `path`, begun now or earlier, and tiles that fit the budget; an earlier one keeps its tiles.

    Raises
    ------
    StoreError
        It holds another kernel, or is damaged, or cannot be written.
    """
    shape = (about["shape"][0], about["shape"][1])
    found = None if force else begun(path, KERNEL, about, mismatch)
    if found is not None:
        fixed = (found.about["tile"], found.about["most"])
        return found, planned(shape, about["symmetric"], cost, memory, True, fixed)
    plan = planned(shape, about["symmetric"], cost, memory, True)
    return create(path, {**about, "tile": plan.tile, "most": plan.most}, KERNEL, force), plan


def streamed(question: Question, path: Path, memory: int, force: bool, report: Callable[[int, int], None]) -> list[Any]:
    """The kernels at `path`, complete, as zarr arrays to be read."""
    found, plan = begin(path, question.about(), question.cost(memory), memory, force)
    work = question.work(plan)
    places = (place for rows in plan.stripes() for place in into(found, work, rows, plan.columns(rows), {}))
    return filled(found, places, report)


def into(found: Store, work: Work, rows: range, columns: range, kept: dict[int, Any]) -> Iterator[Place]:
    """Write what a stripe lacks in some columns; yields each place when it is finished."""
    for place, tiles in work.tiles(rows, columns, kept, found.finished):
        found.write(place, [host(tile) for tile in tiles])
        yield place


def moments(found: Store) -> list[tuple[float, float]]:
    """Trace (of symmetric kernels) and squared Frobenius norm of each kernel, from all marks."""
    marks = [found.sums(place) for place in found.layout.places()]
    kernels = range(max(1, len(found.names)))
    return [(sum(mark["trace"][n] for mark in marks), sum(mark["square"][n] for mark in marks)) for n in kernels]


def _square(tile: np.ndarray) -> float:
    """Its squared Frobenius norm, added in float64 without a copy of the whole."""
    wide = (tile[start : start + 64].astype(np.float64) for start in range(0, len(tile), 64))
    return float(sum(np.vdot(part, part) for part in wide))
