"""What a library must bring to the contest of estimators: methods that are prepared for an operator and a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .operators import Operator

QUANTITIES = ("trace", "frobenius_norm", "effective_rank")

Run = Callable[[int], tuple[float, int]]
"""A seed to the estimate and the AD passes that it took. A product with K counts two."""


class CannotRunError(Exception):
    """A method has no form for this budget; says why."""


@dataclass(frozen=True)
class Method:
    """An estimator of one quantity."""

    name: str
    quantity: str
    prepare: Callable[[Operator, int], Run]
    """Get ready for an operator and a budget in AD passes: as many samples as fit. Raises `CannotRunError`."""
