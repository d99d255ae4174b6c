"""How big, how low-rank and how well aligned is the neural tangent kernel of a network?"""

from .alignments import AlignmentMatrix, alignment_matrix
from .batches import linearize_batches
from .dense import from_jacobian
from .estimate import Estimate
from .linearization import Linearization, NTKError, StaleLinearizationError, linearize
from .partial import PartialTraces, diagonal, partial_trace
from .planning import Prospects, plan
from .probes import Probes
from .quantities import alignment, draw_probes, effective_rank, frobenius_norm, trace
from .summary import Summary, summary

__version__ = "0.1.0"

__all__ = [
    "AlignmentMatrix",
    "Estimate",
    "Linearization",
    "NTKError",
    "PartialTraces",
    "Probes",
    "Prospects",
    "StaleLinearizationError",
    "Summary",
    "alignment",
    "alignment_matrix",
    "diagonal",
    "draw_probes",
    "effective_rank",
    "frobenius_norm",
    "from_jacobian",
    "linearize",
    "linearize_batches",
    "partial_trace",
    "plan",
    "summary",
    "trace",
]
