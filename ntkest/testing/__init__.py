"""The conformance kit: what every adapter must get right, checked from outside and without any framework.

`check_backend` runs an adapter on small models with known Jacobians; `check_linearization` checks a linearization of
one's own, and `check_value_and_gradient` what an adapter may offer beyond. All raise `ConformanceError`, an
AssertionError that names the broken law.
"""

from .cases import Case, cases
from .differentiation import check_value_and_gradient
from .host import to_host
from .kit import check_backend, check_linearization
from .subject import ConformanceError

__all__ = [
    "Case",
    "ConformanceError",
    "cases",
    "check_backend",
    "check_linearization",
    "check_value_and_gradient",
    "to_host",
]
