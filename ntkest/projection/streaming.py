"""Features computed into a store, from the start or from where it was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..kernels.store import Kind, Place, Store, begun, create, filled
from ..linearization import host
from .planning import Plan
from .posing import FORMAT, Question, mismatch


def plan_of(about: Mapping[str, Any]) -> Plan:
    """The pieces of a store."""
    n, each, dim = about["shape"]
    return Plan((n, each, dim), about["axis"], about["step"], about["tile"])


PROJECTION = Kind("projection", FORMAT, plan_of)


def begin(path: Path, about: Mapping[str, Any], planned: Callable[[], Plan], force: bool) -> Store:
    """The store at `path`, begun now or earlier; an earlier one keeps its pieces.

    Raises
    ------
    StoreError
        It holds other features, or is damaged, or cannot be written.
    """
    found = None if force else begun(path, PROJECTION, about, mismatch)
    if found is not None:
        return found
    plan = planned()
    return create(path, {**about, "step": plan.step, "tile": plan.tile}, PROJECTION, force)


def streamed(question: Question, path: Path, memory: int, force: bool, report: Callable[[int, int], None]) -> Any:
    """The features at `path`, complete, as a zarr array to be read."""
    found = begin(path, question.about(), lambda: question.plan(memory, True), force)
    plan = plan_of(found.about)
    return filled(found, into(found, question, plan, plan.places()), report)[0]


def into(found: Store, question: Question, plan: Plan, places: Sequence[Place]) -> Iterator[Place]:
    """Write those of some pieces that are missing; yields each place when it is finished."""
    missing = [plan.span(place) for place in places if not found.finished(place)]
    for span, piece in question.pieces(plan, missing):
        found.write(plan.place(span), [host(piece)])
        yield plan.place(span)
