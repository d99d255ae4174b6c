"""Features of inputs, and what batch norms see of them: from the user, from the adapter, or the outputs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ...linearization import Array, ShapeError, accumulator, beside, detached, find_backend
from .matching import View
from .problem import Problem

BATCH = 256
"""Examples that are looked at together."""


def view_of(problem: Problem, features: Callable[[Array], Array] | None, norms: bool) -> tuple[View, tuple[str, ...]]:
    """How inputs are looked at, and what is to be said about that."""
    backend: Any = find_backend(problem.target, problem.before, problem.options.get("backend"))
    watch = getattr(backend, "activations", lambda target: None)(problem.target)
    hidden, normalised = (None, ()) if watch is None else watch(problem.inputs[:1, ...])
    notes = []
    if features is None:
        notes.append(
            "features are the outputs of the model: no hidden representation is known; give features="
            if hidden is None
            else "features are what the last dense layer of the model is given"
        )
    if norms and not normalised:
        notes.append("no batch norm was seen, so that statistics of none are matched")

    def view(inputs: Array) -> tuple[Array, tuple[Array, ...]]:
        seen = watch(inputs) if watch is not None and (norms or features is None) else (None, ())
        found = features(inputs) if features is not None else seen[0]
        if found is None:
            found = problem.linearize(inputs, check=False, differentiable=True).outputs
        if not found.shape or found.shape[0] != inputs.shape[0]:
            raise ShapeError(
                f"features= gives one row an example; for {inputs.shape[0]} examples it gave {tuple(found.shape)}"
            )
        return problem.xp.reshape(found, (inputs.shape[0], -1)), seen[1] if norms else ()

    return view, tuple(notes)


class Looked(NamedTuple):
    """What was seen of all examples."""

    features: Array
    """(N, d)."""
    moments: tuple[tuple[Array, Array], ...]
    """For each batch norm the means and variances (classes, channels) of what the examples of a class give it."""


def looked(problem: Problem, view: View) -> Looked:
    """At all examples, a batch at a time."""
    xp = problem.xp
    features: list[Array] = []
    powers: list[list[tuple[Array, Array]]] = []
    for start in range(0, len(problem.labels), BATCH):
        found, normalised = view(problem.inputs[start : start + BATCH, ...])
        features.append(detached(found))
        powers.append([_powers(xp, detached(given)) for given in normalised])
    members = (np.arange(problem.classes)[:, None] == problem.labels).astype(np.float64)
    members /= members.sum(axis=1, keepdims=True)  # (classes, N): averages over each class
    moments = []
    for layer in zip(*powers, strict=True):
        first, second = (xp.concat(parts, axis=0) for parts in zip(*layer, strict=True))  # (N, channels)
        average = beside(xp, members, first)
        mean = average @ first
        moments.append((mean, average @ second - mean * mean))
    return Looked(xp.concat(features, axis=0), tuple(moments))


def _powers(xp: ModuleType, given: Array) -> tuple[Array, Array]:
    """Means of values and of their squares over positions, (n, channels)."""
    wide = xp.astype(xp.reshape(given, (*given.shape[:2], -1)), accumulator(xp, given))
    return xp.mean(wide, axis=2), xp.mean(wide * wide, axis=2)
