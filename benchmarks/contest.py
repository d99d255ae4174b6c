"""What a library must bring to the contest of estimators: methods that are prepared for an operator and a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .operators import Operator

QUANTITIES = ("trace", "frobenius_norm", "effective_rank")

Run = Callable[[int], tuple[tuple[float, ...], int]]
"""A seed to the estimates, one a quantity, and the AD passes that they took. A product with K counts two."""


class CannotRunError(Exception):
    """A method has no form for this budget; says why."""


@dataclass(frozen=True)
class Method:
    """An estimator of a quantity, or of several from the same probes."""

    name: str
    quantities: tuple[str, ...]
    prepare: Callable[[Operator, int], Run]
    """Get ready for an operator and a budget in AD passes: as many samples as fit. Raises `CannotRunError`."""
    given: str = "K"
    """What a peer is handed: "K", or "J" where a product with Jᵀ alone is enough, which counts one pass."""
