"""Kernels computed into a store, from the start or from where it was left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..linearization import StoreError, host
from . import store
from .posing import Question, mismatch
from .store import Store
from .tiles import Cost, Plan, Work, planned


def begin(path: Path, about: Mapping[str, Any], cost: Cost, memory: int, force: bool) -> tuple[Store, Plan]:
    """The store at `path`, begun now or earlier, and tiles that fit the budget; an earlier one keeps its tiles.

    Raises
    ------
    StoreError
        It holds another kernel, or is damaged, or cannot be written.
    """
    shape = (about["shape"][0], about["shape"][1])
    if store.exists(path) and not force:
        found = store.opened(path)
        reason = mismatch(found.about, about)
        if reason is not None:
            raise StoreError(
                f"{path} holds another kernel: {reason}. Give another path, or force=True to begin this one anew"
            )
        fixed = (found.plan.tile, found.plan.most)
        return found, planned(shape, about["symmetric"], cost, memory, True, fixed)
    plan = planned(shape, about["symmetric"], cost, memory, True)
    whole = {**about, "tile": plan.tile, "most": plan.most}
    return store.create(path, whole, np.dtype(about["dtype"]), about["each"], force), plan


def streamed(question: Question, path: Path, memory: int, force: bool, report: Callable[[int, int], None]) -> list[Any]:
    """The kernels at `path`, complete, as zarr arrays to be read."""
    found, plan = begin(path, question.about(), question.cost(memory), memory, force)
    with found.locked():
        found.check()
        places = plan.places()
        done = sum(map(found.finished, places))
        report(done, len(places))
        work = question.work(plan)
        for rows in plan.stripes():
            for _ in into(found, work, rows, plan.columns(rows), {}):
                done += 1
                report(done, len(places))
    return found.arrays()


def into(found: Store, work: Work, rows: range, columns: range, kept: dict[int, Any]) -> Any:
    """Write what a stripe lacks in some columns; yields each place when it is finished."""
    for place, tiles in work.tiles(rows, columns, kept, found.finished):
        found.write(place, [host(tile) for tile in tiles])
        yield place
