"""How well predictions stand in for the network's own, and how well conditioned the kernels behind them are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import (
    Array,
    NonFiniteError,
    ShapeError,
    accumulator,
    eps,
    number,
    numbers,
)
from ..predict.systems import check_beside
from .features import check_features, of_class, unit


@dataclass(frozen=True)
class Metrics:
    """Predictions beside the network's outputs and the labels; made by `evaluate`, prints as a table."""

    fidelity: float
    """How often the largest output is the network's."""
    logit_mse: float
    """Mean squared difference from the network's outputs."""
    accuracy: float | None = None
    """How often the largest output is that of the label; None without labels."""
    teacher_accuracy: float | None = None
    """The same for the network."""

    def __str__(self) -> str:
        return "\n".join(f"{name.replace('_', ' '):<20}{value:>10.4g}" for name, value in self.to_dict().items())

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, ready for JSON; without labels no accuracies."""
        return {name: value for name, value in vars(self).items() if value is not None}


def evaluate(predictions: Array, teacher: Array, labels: Array | None = None) -> Metrics:
    """All metrics of predictions.

    Parameters
    ----------
    predictions, teacher : array (n, O)
        Outputs predicted, and those of the network.
    labels : integers (n,), optional

    Raises
    ------
    DeviceMismatchError, InvalidTypeError, NonFiniteError, ShapeError
    """
    rates = (None, None) if labels is None else (accuracy(predictions, labels), accuracy(teacher, labels))
    return Metrics(fidelity(predictions, teacher), logit_mse(predictions, teacher), *rates)


def fidelity(predictions: Array, teacher: Array) -> float:
    """How often the largest of the outputs (n, O) is that of the network's (n, O)."""
    xp = _pair(predictions, teacher)
    return _rate(xp, _largest(xp, predictions) == _largest(xp, teacher))


def accuracy(predictions: Array, labels: Array) -> float:
    """How often the largest of the outputs (n, O) is that of the label (n,)."""
    xp = array_api_compat.array_namespace(predictions)
    check_beside(labels, predictions, "labels")
    if tuple(labels.shape) != tuple(predictions.shape[:1]) or not xp.isdtype(labels.dtype, "integral"):
        raise ShapeError(f"labels are integers ({predictions.shape[0]},), not {labels.dtype} {tuple(labels.shape)}")
    return _rate(xp, _largest(xp, predictions) == labels)


def logit_mse(predictions: Array, teacher: Array) -> float:
    """The mean squared difference between the outputs (n, O) and the network's (n, O)."""
    xp = _pair(predictions, teacher)
    wide = accumulator(xp, predictions)
    found = number(xp.mean((xp.astype(predictions, wide) - xp.astype(teacher, wide)) ** 2))
    if not math.isfinite(found):
        raise NonFiniteError("predictions or the network's outputs hold NaN or infinity")
    return found


@dataclass(frozen=True)
class Conditioning:
    """The extreme eigenvalues of class kernels; made by `conditioning`."""

    smallest: np.ndarray
    """(O,): λ_min of each."""
    largest: np.ndarray
    """(O,): λ_max of each."""
    condition_numbers: np.ndarray
    """(O,): λ_max / λ_min, infinite where λ_min is zero to rounding."""


def conditioning(features: Array) -> Conditioning:
    """Smallest eigenvalue and condition number of each class kernel K_c = Φ_c Φ_cᵀ.

    Parameters
    ----------
    features : array (s, O, k)

    Returns
    -------
    Conditioning
        For O·s²·k multiplications and the eigenvalues of O matrices s × s.

    Raises
    ------
    InvalidTypeError, NonDifferentiableError, NonFiniteError, ShapeError, ZeroKernelError
    """
    xp = check_features(features)
    size, rows = unit(xp, features), []
    for c in range(features.shape[1]):
        phi = of_class(xp, features, c, size)
        rows.append(numbers(xp.linalg.eigvalsh(phi @ phi.T)))
    spectra = np.asarray(rows)
    least, most = np.maximum(spectra[:, 0], 0), np.maximum(spectra[:, -1], 0)
    sound = least > spectra.shape[1] * eps(xp, phi) * most
    ratios = np.full(len(rows), math.inf)
    ratios[sound] = most[sound] / least[sound]
    return Conditioning(least * size**2, most * size**2, ratios)


def _pair(predictions: Any, teacher: Any) -> ModuleType:
    """The namespace of two sets of outputs (n, O)."""
    check_beside(teacher, predictions, "the network's outputs")
    if predictions.shape != teacher.shape or len(predictions.shape) != 2 or 0 in predictions.shape:
        raise ShapeError(
            f"predictions and the network's outputs have one shape (n, O), not {tuple(predictions.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    return array_api_compat.array_namespace(predictions)  # type: ignore[no-any-return]


def _largest(xp: ModuleType, outputs: Array) -> Array:
    if outputs.shape[1] < 2:
        raise ShapeError("the largest of several outputs is asked for, but there is only one; use logit_mse")
    return xp.argmax(outputs, axis=1)


def _rate(xp: ModuleType, same: Array) -> float:
    return number(xp.sum(xp.astype(same, xp.int32))) / int(same.shape[0])
