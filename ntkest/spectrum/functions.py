"""Traces of functions of K, by quadrature or from all eigenvalues."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..estimate import Estimate
from ..estimators import Moment
from ..inference import Quantity
from ..linearization import Array, InvalidTypeError, InvalidValueError, Linearization
from ..probes import check_seed
from ..quantities import setting
from ..sampling import Plan
from .integrands import Entropy, Integrand, Sum
from .quadrature import Function
from .results import estimate_of
from .sampler import FIRST, STEPS, Budget, Samples, fixed, to_tolerance
from .sides import ROUNDING, Operator
from .whole import exact, exact_passes

METHODS = ("auto", "exact", "quadrature")


def trace_function(J: Linearization, f: Function, **keywords: Any) -> Estimate:
    """Tr f(K) = Σ f(λ_i) over all M eigenvalues of K.

    Parameters
    ----------
    J : Linearization
    f : callable
        Takes and returns NumPy arrays of eigenvalues, float64, elementwise: ``np.sqrt``, ``lambda x: x / (x + 1)``.
        f(0) counts for every eigenvalue that is zero, so where K is singular it must be finite.
    **keywords
        rtol, passes, max_passes, seed, centered, memory, chunk, progress : as in `ntkest.quantities`.
        method : "auto", "exact" (all eigenvalues) or "quadrature" (stochastic Lanczos quadrature).
        steps : Lanczos steps a probe; by default as many as the tolerance asks for.
        To meet rtol, leading eigenvectors are taken out of the probes where that saves passes.

    Returns
    -------
    Estimate
        Its error bar holds the spread over probes (jackknife) and, from the difference of Gauss and Gauss–Radau
        quadrature, truncation. Cost: two passes a probe and step; min(M, P) passes for "exact". With M > P probes are
        parameters', which leaves the M - P zeros out of the noise.

    Raises
    ------
    NonFiniteError
        f is not finite at an eigenvalue.

    References
    ----------
    Ubaru, Chen, Saad, SIMAX 2017; Golub and Meurant 2010, chapter 6, for the bracket.
    """
    if not callable(f):
        raise InvalidTypeError(f"f takes a function of NumPy arrays, not {f!r}")
    return _measure(J, Sum("trace_function", f), **keywords)


def logdet(J: Linearization, ridge: float, **keywords: Any) -> Estimate:
    """Log det(K + ridge · I), with an absolute ridge > 0, as in the evidence of a Gaussian process.

    Keywords and cost as for `trace_function`; it is M·log(ridge) + tr log(1 + K/ridge). To have the ridge relative to
    the mean diagonal of K, give ``ridge=c * float(ntkest.trace(J)) / M``.
    """
    ridge = check_ridge(ridge, positive=True)
    M = math.prod(J.outputs.shape) if hasattr(J, "outputs") else 0
    return _measure(J, Sum("logdet", lambda x: np.log1p(x / ridge), M * math.log(ridge)), **keywords)


def entropic_rank(J: Linearization, **keywords: Any) -> Estimate:
    """exp(-Σ p_i log p_i) with p_i = λ_i/Σλ: between 1 and the rank, and at least the effective rank.

    It counts small eigenvalues for more than `ntkest.effective_rank` does. Keywords and cost as for `trace_function`,
    with one pass more a probe: quadrature starts from images of probes, whose weights have the factor λ in them, so
    that the logarithm is never looked at near zero. Raises `ZeroKernelError` where K = 0.

    References
    ----------
    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    return _measure(J, Entropy(), **keywords)


def _measure(
    J: Linearization,
    target: Integrand,
    *,
    method: str = "auto",
    rtol: float = 0.05,
    max_passes: int = 2000,
    passes: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
    progress: Any = False,
) -> Estimate:
    """Exactly where that is cheap, else by quadrature."""
    if method not in METHODS:
        raise InvalidValueError(f"method= takes one of {', '.join(METHODS)}, not {method!r}")
    plan = Plan(rtol=rtol, max_passes=max_passes, passes=passes, seed=check_seed(seed), progress=progress)
    budget = Budget(plan, steps, target.weighted)
    operator = Operator.of(J, centered, memory, chunk)
    why, interrupted, samples, whole = "", False, None, exact_passes(operator)
    afford = passes if passes is not None else min(max_passes, FIRST * budget.cost(operator, STEPS // 2))
    if method == "auto" and (whole <= afford or (not operator.both and whole <= max_passes)):
        why = f"exact: all of J takes {whole} passes"
    elif method != "exact":
        operator.check_both("quadrature")
        if passes is not None:
            samples = fixed(operator, budget)
        else:
            limit = whole if method == "auto" else math.inf
            samples, interrupted = to_tolerance(
                operator, budget, lambda s: _estimate(s, target, rtol), limit, target.influence
            )
            why = "" if samples else f"exact: the tolerance would take more than the {whole} passes of all of J"
    about = {"seed": seed, **setting(J), **({"interrupted": True} if interrupted else {})}
    if samples is not None:
        return _estimate(samples, target, rtol, why, about)[0]
    return _exactly(operator, target, rtol, why, about)


def _exactly(operator: Operator, target: Integrand, rtol: float, why: str, about: dict[str, Any]) -> Estimate:
    """From all eigenvalues; the error bar is what moving them by rounding does."""
    found = exact(operator, operator.outputs, vectors=False)
    zero = found.sizes <= ROUNDING * operator.eps * found.largest
    values, moved = (
        np.where(zero, 0.0, found.sizes + shift) ** 2 * operator.scale for shift in (0.0, operator.eps * found.largest)
    )
    quantity, moments = target.exactly(values)
    truth, shifted = (float(_value(*target.exactly(v))) for v in (values, moved))
    keywords = {"method": "exact", "rtol": rtol, "why": why, "about": about}
    return estimate_of(operator, quantity, moments, abs(shifted - truth), **keywords)


def _estimate(
    samples: Samples, target: Integrand, rtol: float, why: str = "", about: dict[str, Any] | None = None
) -> tuple[Estimate, float]:
    """The estimate, and its error from truncation."""
    operator = samples.operator
    quantity, moments, truncation = target.sampled(samples)
    about = {**(about or {}), "steps": samples.steps, "truncation": truncation, "deflated": samples.deflated}
    keywords = {"method": "quadrature", "rtol": rtol, "why": why, "about": about}
    return estimate_of(operator, quantity, moments, truncation, **keywords), truncation


def check_ridge(ridge: Any, positive: bool) -> float:
    """`ridge` if it is a number of the right sign."""
    wanted = "a positive number" if positive else "a number that is not negative"
    if isinstance(ridge, bool) or not isinstance(ridge, int | float | np.integer | np.floating):
        raise InvalidTypeError(f"ridge= takes {wanted}, not {ridge!r}")
    if not (0 < ridge < math.inf or (ridge == 0 and not positive)):
        raise InvalidValueError(f"ridge= takes {wanted}, not {ridge}")
    return float(ridge)


def _value(quantity: Quantity, moments: tuple[Moment, ...]) -> Array:
    return quantity.formula(*(m.value for m in moments))[0]
