"""From host numbers to an `Estimate` beside the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..estimate import Estimate
from ..estimators import Moment
from ..inference import Quantity, infer
from ..linearization import Array, accumulator, beside, number
from .sides import Operator


def estimate_of(
    operator: Operator, quantity: Quantity, moments: Sequence[Moment], error: float, **result: Any
) -> Estimate:
    """The estimate from moments on the host, in the order of the quantity's keys.

    `error` is a standard error that replicates do not show: truncation, residuals or rounding. The rest goes to
    `Estimate`.
    """
    like = operator.linearization.outputs
    dtype = accumulator(operator.xp, like)

    def place(numbers: Any) -> Array | None:
        return None if numbers is None else beside(operator.xp, numbers, like, dtype)

    placed = (Moment(place(m.value), place(m.replicates), place(m.offset)) for m in moments)
    found = infer(
        operator.problem, quantity, dict(zip(quantity.keys, placed, strict=True)), **costs(operator), **result
    )
    return widened(found, error)


def mean_of(samples: np.ndarray, constant: float = 0.0) -> Moment:
    """A constant plus a mean over probes, with delete-one replicates."""
    m = len(samples)
    without = (np.sum(samples) - samples) / (m - 1)
    offset = np.asarray([constant]) if constant else None
    return Moment(np.asarray([constant + np.mean(samples)]), constant + without[:, None], offset)


def widened(estimate: Estimate, error: float) -> Estimate:
    """`estimate` with a further independent standard error, which its interval shows too."""
    value = abs(number(estimate.value))
    floor = math.hypot(estimate.about.get("floor", 0.0), error / value if value else 0.0)
    wide = math.hypot(number(estimate.std_error), error)
    xp = array_namespace(estimate.value)
    return replace(estimate, std_error=beside(xp, wide, estimate.value), about={**estimate.about, "floor": floor})


def costs(operator: Operator) -> dict[str, int]:
    """AD passes that the operator has made."""
    kernel = operator.problem.kernels[0]
    return {"passes": kernel.passes, "n_jvp": kernel.n_jvp, "n_vjp": kernel.n_vjp}
