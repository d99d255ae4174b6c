"""Tiles of kernels as tasks for workers.

A task is a stripe of rows of tiles and a few columns. Where the kernel goes to a store a task writes its tiles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import usercode
from ..linearization import Linearization, host, numbers
from . import store
from .posing import Question, mismatch, posed
from .streaming import KERNEL, begin, into
from .tiles import Cost, Place, Plan, planned
from .workers import TASKS, description, executor_of, results, stored

Task = tuple[range, range]
"""Rows and columns of tiles."""

_rows = threading.local()
"""Gradients of the stripe that a worker is at."""


@dataclass(frozen=True)
class KernelJob:
    """See `ntkest.kernels.workers.Job`."""

    targets: tuple[str, ...]
    """Factories of one side or two."""
    outputs: Any
    by: str | None
    seed: int
    about: Mapping[str, Any] | None = None
    plan: Plan | None = None
    out: str | None = None

    def key(self) -> Hashable:
        """See `Job.key`."""
        return self.targets, self.outputs, self.by, self.seed

    def posed(self, sides: Sequence[Linearization]) -> Question:
        """See `Job.posed`."""
        return posed(sides[0], sides[1] if len(sides) > 1 else None, self.outputs, self.by, self.seed)

    def described(self, question: Question, memory: int) -> Cost:
        """See `Job.described`."""
        return question.cost(memory)

    def mismatch(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
        """See `Job.mismatch`."""
        return mismatch(old, new)

    def computed(self, question: Question, task: Task) -> list[tuple[Place, list[np.ndarray]]]:
        """Tiles of a stripe in some columns; without their content where they were written to the store."""
        assert self.plan is not None
        rows, columns = task
        key = (self.key(), self.plan, rows)
        if getattr(_rows, "key", None) != key:
            _rows.key, _rows.kept = key, {}
        work = question.work(self.plan)
        if self.out is None:
            return [(place, [host(a) for a in tiles]) for place, tiles in work.tiles(rows, columns, _rows.kept)]
        kernel = store.opened(Path(self.out), KERNEL)
        return [(place, []) for place in into(kernel, work, rows, columns, _rows.kept)]


def farmed(
    client: Any, job: KernelJob, memory: int, path: Path | None, force: bool, report: Callable[[int, int], None]
) -> tuple[tuple[str, ...], list[Any]]:
    """Names and kernels, as NumPy arrays, or as zarr arrays at `path`.

    Raises
    ------
    WorkerError, StoreError, NTKError
    """
    with executor_of(client) as executor:
        about, cost = description(executor, job, memory)
        names = tuple(about["names"])
        if path is None:
            shape = (about["shape"][0], about["shape"][1])
            plan = planned(shape, about["symmetric"], cost, memory, True)
            kernels = [np.empty([n * about["each"] for n in shape], about["dtype"]) for _ in names or [None]]
            todo, done = plan.places(), 0
            job = replace(job, about=about, plan=plan)
            for found in results(executor, job, _tasks(plan, set(todo))):
                for place, tiles in found:
                    _fill(kernels, tiles, place, plan.tile * about["each"], plan)
                done += len(found)
                report(done, len(todo))
            return names, kernels
        kernel, plan = begin(path, about, cost, memory, force)
        job = replace(job, about=about, plan=plan, out=str(path))
        return names, stored(executor, job, kernel, lambda todo: _tasks(plan, todo), report)


def job_of(J: Any, other: Any, outputs: Any, by: str | None, seed: int) -> KernelJob:
    """From factories and keywords.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    if hasattr(outputs, "shape"):
        outputs = tuple(numbers(outputs).ravel().tolist())
    factories = (J,) if other is None or other is J else (J, other)
    return KernelJob(tuple(map(usercode.name_of, factories)), outputs, by, seed)


def _tasks(plan: Plan, todo: set[Place]) -> list[Task]:
    stripes = plan.stripes()
    each = -(-TASKS // len(stripes))
    tasks = []
    for rows in stripes:
        columns = plan.columns(rows)
        step = max(1, len(columns) // each)
        tasks += [(rows, columns[start : start + step]) for start in range(0, len(columns), step)]
    return [(rows, columns) for rows, columns in tasks if any((i, j) in todo for i in rows for j in columns)]


def _fill(kernels: list[np.ndarray], tiles: list[np.ndarray], place: Place, side: int, plan: Plan) -> None:
    for kernel, tile in zip(kernels, tiles, strict=True):
        for (i, j), part in plan.laid(place, tile):
            kernel[i * side : (i + 1) * side, j * side : (j + 1) * side] = part
