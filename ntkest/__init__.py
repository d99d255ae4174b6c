"""How big, how low-rank and how well aligned is the neural tangent kernel of a network?"""

from .batches import linearize_batches
from .dense import from_jacobian
from .linearization import Linearization, NTKError, linearize

__all__ = ["Linearization", "NTKError", "from_jacobian", "linearize", "linearize_batches"]
