"""Pieces of features as tasks for workers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import usercode
from ..kernels import store
from ..kernels.store import Place
from ..kernels.workers import TASKS, description, executor_of, results, stored
from ..linearization import Linearization, host
from .planning import Plan
from .posing import Question, mismatch, posed
from .streaming import PROJECTION, begin, into, plan_of

Task = tuple[Place, ...]
"""Pieces that follow one another."""


@dataclass(frozen=True)
class ProjectionJob:
    """See `ntkest.kernels.workers.Job`."""

    targets: tuple[str, ...]
    dim: int
    kind: str
    seed: int
    about: Mapping[str, Any] | None = None
    plan: Plan | None = None
    out: str | None = None

    def key(self) -> Hashable:
        """See `Job.key`."""
        return self.targets, self.dim, self.kind, self.seed

    def posed(self, sides: Sequence[Linearization]) -> Question:
        """See `Job.posed`."""
        return posed(sides[0], self.dim, self.kind, self.seed)

    def described(self, question: Question, memory: int) -> Plan:
        """See `Job.described`."""
        return question.plan(memory, True)

    def mismatch(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
        """See `Job.mismatch`."""
        return mismatch(old, new)

    def computed(self, question: Question, task: Task) -> list[tuple[Place, np.ndarray | None]]:
        """Some pieces; without their content where they were written to the store."""
        assert self.plan is not None
        if self.out is None:
            found = question.pieces(self.plan, [self.plan.span(place) for place in task])
            return [(self.plan.place(span), host(piece)) for span, piece in found]
        return [(place, None) for place in into(store.opened(Path(self.out), PROJECTION), question, self.plan, task)]


def farmed(
    client: Any, job: ProjectionJob, memory: int, path: Path | None, force: bool, report: Callable[[int, int], None]
) -> Any:
    """The features, as a NumPy array, or as a zarr array at `path`.

    Raises
    ------
    WorkerError, StoreError, NTKError
    """
    with executor_of(client) as executor:
        about, plan = description(executor, job, memory)
        if path is not None:
            found = begin(path, about, lambda: plan, force)
            job = replace(job, about=about, plan=plan_of(found.about), out=str(path))
            return stored(executor, job, found, _tasks, report)[0]
        features, places, done = np.empty(plan.shape, about["dtype"]), plan.places(), 0
        for pieces in results(executor, replace(job, about=about, plan=plan), _tasks(places)):
            for place, piece in pieces:
                features[plan.part(plan.span(place))] = piece
            done += len(pieces)
            report(done, len(places))
        return features


def job_of(J: Any, dim: Any, kind: Any, seed: Any) -> ProjectionJob:
    """From a factory and keywords.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    return ProjectionJob((usercode.name_of(J),), dim, kind, seed)


def _tasks(places: Sequence[Place] | set[Place]) -> list[Task]:
    ordered = sorted(places)
    step = max(1, len(ordered) // TASKS)
    return [tuple(ordered[start : start + step]) for start in range(0, len(ordered), step)]
