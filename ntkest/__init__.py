"""How big, how low-rank and how well aligned is the neural tangent kernel of a network?"""

from . import predict, projection
from .alignments import AlignmentMatrix, alignment_matrix
from .batches import linearize_batches
from .compare import Comparison, ReadoutCheck, compare, readout_check
from .dense import from_jacobian
from .distilled import DistilledNTK, distill, distill_features
from .estimate import Estimate
from .kernels import kernel_blocks, ntk, pntk
from .linearization import Linearization, NTKError, StaleLinearizationError, linearize
from .partial import PartialTraces, diagonal, partial_trace
from .planning import Prospects, plan
from .probes import Probes
from .projection import project
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
    "AlignmentMatrix",
    "Comparison",
    "DistilledNTK",
    "Eigenvalues",
    "Estimate",
    "Linearization",
    "NTKError",
    "PartialTraces",
    "Probes",
    "Prospects",
    "ReadoutCheck",
    "SpectralDensity",
    "StaleLinearizationError",
    "Summary",
    "alignment",
    "alignment_matrix",
    "compare",
    "condition_number",
    "diagonal",
    "distill",
    "distill_features",
    "draw_probes",
    "effective_rank",
    "eigenvalues",
    "entropic_rank",
    "frobenius_norm",
    "from_jacobian",
    "kernel_blocks",
    "linearize",
    "linearize_batches",
    "logdet",
    "ntk",
    "partial_trace",
    "plan",
    "pntk",
    "predict",
    "project",
    "projection",
    "readout_check",
    "spectral_density",
    "stable_rank",
    "summary",
    "trace",
    "trace_function",
]
