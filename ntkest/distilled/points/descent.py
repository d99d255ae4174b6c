"""Descent that keeps the best it has seen, and goes on from there in smaller steps when things get worse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import array_api_compat

from ...linearization import NonFiniteError
from .adam import Adam, Arrays

PATIENCE = 3
"""Looks in a row without a better one after which the best is gone back to."""

Gradient = Callable[[Arrays, int], Arrays]
"""From arrays and the number of a step, from 0 on, to the gradients."""


def descend(
    arrays: Arrays,
    gradient: Gradient,
    objective: Callable[[Arrays], float],
    adam: Adam,
    scales: tuple[float, ...],
    *,
    look: int,
    bounds: tuple[float, float] | None = None,
    report: Callable[[int, int], None] = lambda done, steps: None,
) -> tuple[Arrays, tuple[float, ...]]:
    """The best arrays that were looked at, and the objective each time.

    All of the objective is looked at before the first step, after every `look` steps and after the last. If `PATIENCE`
    looks in a row show no better one, the best arrays are gone back to, and the rate is halved. So the result is never
    worse than the start, also where gradients say little, as those of the jumping derivatives of a ReLU network do.

    Parameters
    ----------
    arrays : tuple of arrays
    gradient, objective : callable
    adam : Adam
    scales : tuple of float
        What steps are multiplied by, for each array.
    look : int
    bounds : (float, float), optional
        The first array is kept between them, at the start too.
    report : callable
        Is told of steps done and steps in all.

    Raises
    ------
    NonFiniteError
        The objective at the start is NaN or infinite.
    """
    waited = 0
    arrays = _bounded(arrays, bounds)
    best, state = arrays, adam.start(arrays)
    history = [objective(arrays)]
    lowest = history[0]
    if not math.isfinite(lowest):
        raise NonFiniteError(f"the objective is {lowest} at the start; raise the ridge, or compute in float64")
    for i in range(adam.steps):
        arrays, state = adam.step(arrays, gradient(arrays, i), state, scales, i)
        arrays = _bounded(arrays, bounds)
        report(i + 1, adam.steps)
        if (i + 1) % look and i + 1 < adam.steps:
            continue
        history.append(objective(arrays))
        if history[-1] < lowest:  # never for NaN
            best, lowest, waited = arrays, history[-1], 0
        elif (waited := waited + 1) == PATIENCE:
            waited = 0
            arrays, adam = best, replace(adam, rate=adam.rate / 2)
            state = adam.start(arrays)
    return best, tuple(history)


def _bounded(arrays: Arrays, bounds: tuple[float, float] | None) -> Arrays:
    if bounds is None:
        return arrays
    return (array_api_compat.array_namespace(arrays[0]).clip(arrays[0], *bounds), *arrays[1:])
