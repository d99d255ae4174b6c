"""Tiles as tasks for other processes, each of which builds the model for itself.

A task is a stripe of rows of tiles and a few columns. Where the kernel goes to a store a task writes its tiles, and one
that is run again, because its worker died, goes on after those that are finished.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import usercode
from ..linearization import InvalidTypeError, WorkerError, host, numbers
from . import store
from .posing import Question, mismatch, posed
from .streaming import begin, into
from .tiles import Cost, Place, Plan, planned

TASKS = 16
"""Least number of tasks of a kernel: enough to share the work evenly among a few workers."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, as plain data."""

    targets: tuple[str, ...]
    """Factories of one side or two."""
    outputs: Any
    by: str | None
    seed: int
    about: Mapping[str, Any] | None = None
    """What the kernel is of, which every worker's own model must agree with."""
    plan: Plan | None = None
    out: str | None = None


def farmed(
    client: Any, job: Job, memory: int, path: Path | None, force: bool, report: Callable[[int, int], None]
) -> tuple[tuple[str, ...], list[Any]]:
    """Names and kernels, as NumPy arrays, or as zarr arrays at `path`.

    Raises
    ------
    WorkerError, StoreError, NTKError
    """
    with _executor(client) as executor:
        about, cost = _result(executor.submit(describe, job, memory))
        names = tuple(about["names"])
        if path is None:
            shape = (about["shape"][0], about["shape"][1])
            plan = planned(shape, about["symmetric"], cost, memory, True)
            kernels = [np.empty([n * about["each"] for n in shape], about["dtype"]) for _ in names or [None]]
            todo, done = plan.places(), 0
            for found in _tiles(executor, replace(job, about=about, plan=plan), todo):
                for place, tiles in found:
                    _fill(kernels, tiles, place, plan.tile * about["each"], plan)
                done += len(found)
                report(done, len(todo))
            return names, kernels
        kernel, plan = begin(path, about, cost, memory, force)
        with kernel.locked():
            kernel.check()
            places = plan.places()
            todo = [place for place in places if not kernel.finished(place)]
            report(len(places) - len(todo), len(places))
            for _ in _tiles(executor, replace(job, about=about, plan=plan, out=str(path)), todo):
                report(sum(map(kernel.finished, places)), len(places))
            kernel.sweep()
        return names, kernel.arrays()


def job_of(J: Any, other: Any, outputs: Any, by: str | None, seed: int) -> Job:
    """From factories and keywords.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    if hasattr(outputs, "shape"):
        outputs = tuple(numbers(outputs).ravel().tolist())
    factories = (J,) if other is None or other is J else (J, other)
    return Job(tuple(map(usercode.name_of, factories)), outputs, by, seed)


# On a worker ----------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_built: dict[Any, tuple[Question, Mapping[str, Any]]] = {}
_rows = threading.local()


def describe(job: Job, memory: int) -> tuple[Mapping[str, Any], Cost]:
    """What the kernel is of, and what tiles within `memory` are planned by."""
    question, about = _question(job)
    with _importable(job):
        return about, question.cost(memory)


def compute(job: Job, rows: range, columns: range) -> list[tuple[Place, list[np.ndarray]]]:
    """Tiles of a stripe in some columns; without their content where they were written to the store."""
    question, about = _question(job)
    assert job.about is not None
    assert job.plan is not None
    reason = mismatch(job.about, about)
    if reason is not None:
        raise WorkerError(
            f"{' and '.join(job.targets)} made something else on another worker ({reason}); seed its random numbers, "
            "or load the parameters from a file"
        )
    key = (job.targets, job.outputs, job.by, job.seed, job.plan, rows)
    if getattr(_rows, "key", None) != key:
        _rows.key, _rows.kept = key, {}
    with _importable(job):
        work = question.work(job.plan)
        if job.out is None:
            return [(place, [host(a) for a in tiles]) for place, tiles in work.tiles(rows, columns, _rows.kept)]
        kernel = store.opened(Path(job.out))
        return [(place, []) for place in into(kernel, work, rows, columns, _rows.kept)]


def _question(job: Job) -> tuple[Question, Mapping[str, Any]]:
    """Built once a process."""
    key = (job.targets, job.outputs, job.by, job.seed)
    with _lock, _importable(job):
        if key not in _built:
            _built.clear()
            sides = [usercode.linearized(target) for target in job.targets]
            question = posed(sides[0], sides[1] if len(sides) > 1 else None, job.outputs, job.by, job.seed)
            _built[key] = (question, question.about())
        return _built[key]


def _importable(job: Job) -> ExitStack:
    stack = ExitStack()
    for target in job.targets:
        stack.enter_context(usercode.importable(target))
    return stack


# Here -----------------------------------------------------------------------------------------------------------------


def _tiles(executor: Executor, job: Job, todo: list[Place]) -> Iterator[list[tuple[Place, list[np.ndarray]]]]:
    """What tasks give, as they end. When one fails, those that have not begun are given up."""
    assert job.plan is not None
    tasks = _tasks(job.plan, set(todo))
    futures = [executor.submit(compute, job, rows, columns) for rows, columns in tasks]
    try:
        for future in as_completed(futures):
            futures.remove(future)
            yield _result(future)
    finally:
        for future in futures:
            future.cancel()


def _tasks(plan: Plan, todo: set[Place]) -> list[tuple[range, range]]:
    stripes = plan.stripes()
    each = -(-TASKS // len(stripes))
    tasks = []
    for rows in stripes:
        columns = plan.columns(rows)
        step = max(1, len(columns) // each)
        tasks += [(rows, columns[start : start + step]) for start in range(0, len(columns), step)]
    return [(rows, columns) for rows, columns in tasks if any((i, j) in todo for i in rows for j in columns)]


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except Exception as error:
        if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
            raise WorkerError(
                "a worker died, perhaps for want of memory; tiles that are finished in a store are kept: call again, "
                "with new workers or less memory="
            ) from error
        raise


def _executor(client: Any) -> Any:
    """A context that gives an executor: this one, which somebody else will shut down, or one of a dask client."""
    if isinstance(client, Executor):
        return nullcontext(client)
    if hasattr(client, "get_executor"):
        return client.get_executor(pure=False)
    raise InvalidTypeError(
        f"client= takes a dask.distributed.Client or a concurrent.futures.Executor, not {type(client).__name__}"
    )


def _fill(kernels: list[np.ndarray], tiles: list[np.ndarray], place: Place, side: int, plan: Plan) -> None:
    for kernel, tile in zip(kernels, tiles, strict=True):
        for (i, j), part in plan.laid(place, tile):
            kernel[i * side : (i + 1) * side, j * side : (j + 1) * side] = part
