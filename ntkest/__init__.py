"""How big, how low-rank and how well aligned is the neural tangent kernel of a network?"""

from .batches import linearize_batches
from .dense import from_jacobian
from .estimate import Estimate
from .linearization import Linearization, NTKError, StaleLinearizationError, linearize
from .probes import Probes
from .quantities import alignment, draw_probes, effective_rank, frobenius_norm, trace
from .spectrum import (
    Eigenvalues,
    SpectralDensity,
    condition_number,
    eigenvalues,
    entropic_rank,
    logdet,
    spectral_density,
    stable_rank,
    trace_function,
)
from .summary import Summary, summary

__version__ = "0.1.0"

__all__ = [
    "Eigenvalues",
    "Estimate",
    "Linearization",
    "NTKError",
    "Probes",
    "SpectralDensity",
    "StaleLinearizationError",
    "Summary",
    "alignment",
    "condition_number",
    "draw_probes",
    "effective_rank",
    "eigenvalues",
    "entropic_rank",
    "frobenius_norm",
    "from_jacobian",
    "linearize",
    "linearize_batches",
    "logdet",
    "spectral_density",
    "stable_rank",
    "summary",
    "trace",
    "trace_function",
]
