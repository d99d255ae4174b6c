"""Work for other processes, each of which builds the model for itself.

A job says what is wanted, as plain data. A worker builds what the job asks for once, and does one task after the other
with it. A task that is run again, because its worker died, goes on after what is finished in a store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import ExitStack, nullcontext
from typing import Any, Protocol

from .. import usercode
from ..linearization import InvalidTypeError, Linearization, WorkerError
from .store import Place, Store

TASKS = 16
"""Least number of tasks: enough to share the work evenly among a few workers."""


class Job(Protocol):
    """All that a worker needs to know, as plain data."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The factories of linearizations."""
        ...

    @property
    def about(self) -> Mapping[str, Any] | None:
        """What is wanted of which models, which every worker's own must agree with; None until one has described it."""
        ...

    def key(self) -> Hashable:
        """What a worker builds, told from everything else."""
        ...

    def posed(self, sides: Sequence[Linearization]) -> Any:
        """What is built: a question, with a method ``about``."""
        ...

    def described(self, question: Any, memory: int) -> Any:
        """What tasks within so much memory are planned by."""
        ...

    def mismatch(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
        """Why two questions are not the same, in words."""
        ...

    def computed(self, question: Any, task: Any) -> Any:
        """What a task comes to."""
        ...


# On a worker ----------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_built: dict[Any, tuple[Any, Mapping[str, Any]]] = {}


def describe(job: Job, memory: int) -> tuple[Mapping[str, Any], Any]:
    """What the question is about, and what tasks within so much memory are planned by."""
    question, about = _question(job)
    with _importable(job):
        return about, job.described(question, memory)


def compute(job: Job, task: Any) -> Any:
    """One task.

    Raises
    ------
    WorkerError
        The model is not what another worker has built.
    """
    question, about = _question(job)
    assert job.about is not None
    reason = job.mismatch(job.about, about)
    if reason is not None:
        raise WorkerError(
            f"{' and '.join(job.targets)} made something else on another worker ({reason}); seed its random numbers, "
            "or load the parameters from a file"
        )
    with _importable(job):
        return job.computed(question, task)


def _question(job: Job) -> tuple[Any, Mapping[str, Any]]:
    """Built once a process."""
    with _lock, _importable(job):
        if job.key() not in _built:
            _built.clear()
            question = job.posed([usercode.linearized(target) for target in job.targets])
            _built[job.key()] = (question, question.about())
        return _built[job.key()]


def _importable(job: Job) -> ExitStack:
    stack = ExitStack()
    for target in job.targets:
        stack.enter_context(usercode.importable(target))
    return stack


# Here -----------------------------------------------------------------------------------------------------------------


def executor_of(client: Any) -> Any:
    """A context that gives an executor: this one, which somebody else will shut down, or one of a dask client.

    Raises
    ------
    InvalidTypeError
    """
    if isinstance(client, Executor):
        return nullcontext(client)
    if hasattr(client, "get_executor"):
        return client.get_executor(pure=False)
    raise InvalidTypeError(
        f"client= takes a dask.distributed.Client or a concurrent.futures.Executor, not {type(client).__name__}"
    )


def description(executor: Executor, job: Job, memory: int) -> tuple[Mapping[str, Any], Any]:
    """`describe`, by a worker."""
    found: tuple[Mapping[str, Any], Any] = _result(executor.submit(describe, job, memory))
    return found


def results(executor: Executor, job: Job, tasks: Sequence[Any]) -> Iterator[Any]:
    """What tasks give, as they end. When one fails, those that have not begun are given up.

    Raises
    ------
    WorkerError
        A worker died.
    """
    futures = [executor.submit(compute, job, task) for task in tasks]
    try:
        for future in as_completed(futures):
            futures.remove(future)
            yield _result(future)
    finally:
        for future in futures:
            future.cancel()


def stored(
    executor: Executor,
    job: Job,
    found: Store,
    tasks: Callable[[set[Place]], Sequence[Any]],
    report: Callable[[int, int], None],
) -> list[Any]:
    """The arrays of a store, complete, when workers have written the tiles that are missing."""
    with found.locked():
        found.check()
        places = found.layout.places()
        todo = {place for place in places if not found.finished(place)}
        report(len(places) - len(todo), len(places))
        for _ in results(executor, job, tasks(todo)):
            report(sum(map(found.finished, places)), len(places))
        found.sweep()
    return found.arrays()


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
