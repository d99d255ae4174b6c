"""The spectrum of K = J Jᵀ: eigenvalues, their density, and traces of functions of K.

Read in this order: `sides` (J between its smaller and its larger side), `blocks` and `golub_kahan` (bidiagonalisation
with blocks), `krylov` (steps until it has converged), `whole` (all of J), `eigen`; `quadrature` (bidiagonalisation from
many probes at once), `deflation` (without the leading vectors), `sampler` (how many), `integrands` and `functions`,
`density`; `ratios`.
"""

from .density import SpectralDensity, spectral_density
from .eigen import Eigenvalues, eigenvalues
from .functions import entropic_rank, logdet, trace_function
from .ratios import condition_number, stable_rank

__all__ = [
    "Eigenvalues",
    "SpectralDensity",
    "condition_number",
    "eigenvalues",
    "entropic_rank",
    "logdet",
    "spectral_density",
    "stable_rank",
    "trace_function",
]
