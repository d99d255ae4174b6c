"""How well a distilled kernel stands in for its network, on inputs that it has not seen."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, number, numbers
from .metrics import accuracy, conditioning, fidelity, logit_mse


@dataclass(frozen=True)
class Scores:
    """Made by `DistilledNTK.metrics`; prints as a table."""

    examples: int
    """Inputs that were predicted."""
    fidelity: float | None
    """How often the largest output is the network's; None for a single output."""
    logit_mse: float
    """The mean of (f - network)² over inputs and outputs."""
    logit_error: float
    """‖f - network‖_F / ‖network‖_F."""
    accuracy: float | None
    """How often the largest output is the label's; None without labels, as the next."""
    network_accuracy: float | None
    """The same for the network itself."""
    uncompressed_fidelity: float | None
    """`fidelity` of the regression with all points; None where their features are not at hand."""
    agreement: float | None
    """How often the largest output is that of the regression with all points."""
    condition_numbers: tuple[float, ...]
    """λ_max/λ_min of each K̂_c."""
    smallest_eigenvalues: tuple[float, ...]
    """λ_min of each K̂_c over the mean of its diagonal; what the ridge is to be compared with."""
    compression: float
    """m/s."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; what is not finite is None."""
        found = asdict(self)
        found["condition_numbers"] = [c if math.isfinite(c) else None for c in self.condition_numbers]
        found["smallest_eigenvalues"] = list(self.smallest_eigenvalues)
        return found

    def rows(self) -> list[tuple[str, str]]:
        """Names and numbers, as text."""
        numbers: list[tuple[str, float | None]] = [
            ("fidelity to the network", self.fidelity),
            ("… with all points", self.uncompressed_fidelity),
            ("agreement with all points", self.agreement),
            ("accuracy", self.accuracy),
            ("… of the network", self.network_accuracy),
            ("mean squared error of outputs", self.logit_mse),
            ("relative error of outputs", self.logit_error),
            ("worst condition number", max(self.condition_numbers)),
            ("smallest eigenvalue", min(self.smallest_eigenvalues)),
            ("compression m/s", self.compression),
        ]
        return [(name, f"{value:.4g}") for name, value in numbers if value is not None]

    def __str__(self) -> str:
        return "\n".join(f"{name:<32}{text:>10}" for name, text in self.rows())


def scored(distilled: Any, predicted: Array, truth: Array, labels: Array | None, whole: Array | None) -> Scores:
    """From predictions (n, O) of a `DistilledNTK`, the network's outputs, and what all points predict."""
    xp = array_api_compat.array_namespace(predicted)
    gap, size = (number(xp.linalg.vector_norm(a)) for a in (predicted - truth, truth))
    found, features = conditioning(distilled.features), distilled.features
    own = array_api_compat.array_namespace(features)  # the host's, if they were read from a file
    diagonals = numbers(own.mean(own.sum(features * features, axis=2), axis=0))
    several = int(truth.shape[1]) > 1  # of a single output none is the largest
    return Scores(
        examples=int(predicted.shape[0]),
        fidelity=fidelity(predicted, truth) if several else None,
        logit_mse=logit_mse(predicted, truth),
        logit_error=gap / size if size else math.nan,
        accuracy=accuracy(predicted, labels) if several and labels is not None else None,
        network_accuracy=accuracy(truth, labels) if several and labels is not None else None,
        uncompressed_fidelity=fidelity(whole, truth) if several and whole is not None else None,
        agreement=fidelity(predicted, whole) if several and whole is not None else None,
        condition_numbers=tuple(found.condition_numbers.tolist()),
        smallest_eigenvalues=tuple((found.smallest / np.where(diagonals > 0, diagonals, 1)).tolist()),
        compression=distilled.about["m"] / distilled.size,
    )
