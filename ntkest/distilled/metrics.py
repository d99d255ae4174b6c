"""How well the distilled kernel stands in for the network."""

from __future__ import annotations

import array_api_compat

from ..linearization import Array, ShapeError, accumulator, number


def fidelity(predictions: Array, teacher: Array) -> float:
    """How often the largest output (n, O) is that of the network's own (n, O)."""
    xp = array_api_compat.array_namespace(predictions)
    if predictions.shape != teacher.shape:
        raise ShapeError("shapes")
    same = xp.argmax(predictions, axis=1) == xp.argmax(teacher, axis=1)
    return number(xp.mean(xp.astype(same, xp.float32)))


def accuracy(predictions: Array, labels: Array) -> float:
    """How often the largest output (n, O) is that of the label (n,)."""
    xp = array_api_compat.array_namespace(predictions)
    return number(xp.mean(xp.astype(xp.argmax(predictions, axis=1) == labels, xp.float32)))


def logit_mse(predictions: Array, teacher: Array) -> float:
    """The mean squared difference from the network's outputs."""
    xp = array_api_compat.array_namespace(predictions)
    return number(xp.mean((xp.astype(predictions, accumulator(xp, predictions)) - teacher) ** 2))
