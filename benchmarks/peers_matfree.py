"""matfree in the contest of estimators, with the samplers that its documentation advises for large operators.

Not here: diagonals, whose sums are traces that its own documentation calls less accurate, and Lanczos quadrature,
which gives the quadratic forms of the Monte-Carlo estimators at more products.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from matfree import stochtrace

from .contest import Method
from .peers_jax import Compiled, Estimate

PACKAGES = ("matfree", "jax", "jaxlib", "numpy")


def methods(duplicate: bool = False) -> list[Method]:
    """Estimators of traces and Frobenius norms."""
    signs, sphere = stochtrace.sampler_signs, stochtrace.sampler_sphere
    many, loo = stochtrace.estimator_monte_carlo, stochtrace.estimator_leave_one_out
    cholesky = functools.partial(stochtrace.leave_one_out_xnystrace, nystrom=stochtrace.nystrom_shifted_cholesky())

    def method(name: str, norm: bool, products: int, *parts: Any) -> Method:
        make = functools.partial(_make, duplicate, norm, *parts)
        return Method(name, ("frobenius_norm" if norm else "trace",), Compiled(make, products))

    found = [
        method("hutchinson", False, 1, many, stochtrace.monte_carlo_trace, signs),
        method("xtrace", False, 2, loo, stochtrace.leave_one_out_xtrace, sphere),
        method("xnystrace", False, 1, loo, stochtrace.leave_one_out_xnystrace, sphere),
        method("xnystrace (Cholesky)", False, 1, loo, cholesky, sphere),
        method("hutchinson", True, 1, many, stochtrace.monte_carlo_frobeniusnorm_squared, signs),
        method("xsymrownorms", True, 2, loo, stochtrace.leave_one_out_xsymrownorms_squared, sphere),
        method("xrownorms", True, 3, loo, stochtrace.leave_one_out_xrownorms_squared, sphere),
    ]
    if duplicate:
        return [m for m in found if "hutchinson" not in m.name]
    return [*found, Method("squared norm of Jᵀ", ("trace",), Compiled(_make_one_sided, 1, given="J"), given="J")]


def _make_one_sided(n: int, samples: int) -> Estimate:
    """Tr K = ‖Jᵀ‖_F², where a user sees that the squared norm can be had of a factor."""
    sampler = stochtrace.sampler_signs(jnp.ones(n), num=samples)
    estimate = stochtrace.estimator_monte_carlo(stochtrace.monte_carlo_frobeniusnorm_squared(), sampler)
    return lambda key, J: estimate(lambda v, J: v @ J, key, J)


def duplicated() -> list[Method]:
    """Methods whose second half of probes repeats the first half."""
    return methods(duplicate=True)


def _make(
    duplicate: bool,
    norm: bool,
    estimator: Callable[..., Any],
    integrand: Callable[[], Any],
    sampler: Callable[..., Any],
    n: int,
    samples: int,
) -> Estimate:
    if duplicate:
        draw = sampler(jnp.ones(n), num=(samples + 1) // 2)
        estimate = estimator(integrand(), lambda key: jnp.tile(draw(key), (2, 1))[:samples])
    else:
        estimate = estimator(integrand(), sampler(jnp.ones(n), num=samples))

    def trace(key: Any, K: Any) -> Any:
        return estimate(lambda v, K: K @ v, key, K)

    def frobenius_norm(key: Any, K: Any) -> Any:
        return jnp.sqrt(jnp.sum(trace(key, K)))  # a square, or the squares of rows

    return frobenius_norm if norm else trace
