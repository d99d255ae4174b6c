"""Estimators of the moments of K, one a file."""

from .adaptivehutchpp import ADAPTIVEHUTCHPP
from .exact import EXACT
from .hutchinson import Hutchinson
from .hutchpp import HUTCHPP, HUTCHPP_JV
from .nystrompp import NYSTROMPP
from .onesided import FORWARD, REVERSE
from .perexample import BY_EXAMPLE
from .problem import Bound, Counted, Estimator, Key, Moment, Problem
from .xnystrace import XNYSTRACE, XNysTrace
from .xtrace import XTRACE, XTRACE_POWER, XTrace

ESTIMATORS: dict[str, Estimator] = {
    e.name: e
    for e in (
        REVERSE,
        FORWARD,
        BY_EXAMPLE,
        Hutchinson(),
        HUTCHPP,
        HUTCHPP_JV,
        NYSTROMPP,
        ADAPTIVEHUTCHPP,
        XNYSTRACE,
        XTRACE,
        XTRACE_POWER,
    )
}
"""Estimators that sample, by the name that ``method=`` takes."""

METHODS = ("auto", EXACT.name, *ESTIMATORS)
"""All values of ``method=``."""

__all__ = [
    "BY_EXAMPLE",
    "ESTIMATORS",
    "EXACT",
    "FORWARD",
    "METHODS",
    "REVERSE",
    "XNYSTRACE",
    "XTRACE",
    "XTRACE_POWER",
    "Bound",
    "Counted",
    "Estimator",
    "Key",
    "Moment",
    "Problem",
    "XNysTrace",
    "XTrace",
]
