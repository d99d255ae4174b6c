"""Partial traces: how tr K is spread over examples, outputs, time steps or units; and the diagonal of K.

One estimator a file: `exact`, `onesided` (forward and reverse), `twosided` and `nystrom`; `choice` picks one.
"""

from .result import PartialTraces
from .traces import diagonal, partial_trace

__all__ = ["PartialTraces", "diagonal", "partial_trace"]
