"""traceax in the contest of estimators, with its defaults. It has no Frobenius norm."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import lineax
import traceax

from .contest import Method
from .peers_jax import Compiled, Estimate

PACKAGES = ("traceax", "lineax", "equinox", "jax", "jaxlib", "numpy")

ESTIMATORS = {
    "hutchinson": traceax.HutchinsonEstimator,
    "hutch++": traceax.HutchPlusPlusEstimator,
    "xtrace": traceax.XTraceEstimator,
    "xnystrace": traceax.XNysTraceEstimator,
}


def methods() -> list[Method]:
    """All its estimators; `k` is the number of products, of which Hutch++ uses whole thirds and XTrace whole halves."""
    return [
        Method(name, ("trace",), Compiled(functools.partial(_make, estimator()), 1))
        for name, estimator in ESTIMATORS.items()
    ]


class Repeated(traceax.SphereSampler):
    """A sampler whose second half repeats the first half."""

    def __call__(self, key: Any, n: int, k: int) -> Any:
        """Samples (n, k)."""
        return jnp.tile(super().__call__(key, n, (k + 1) // 2), (1, 2))[:, :k]


def duplicated() -> list[Method]:
    """Methods whose second half of probes repeats the first half."""
    return [
        Method(name, ("trace",), Compiled(functools.partial(_make, ESTIMATORS[name](sampler=Repeated())), 1))
        for name in ("xtrace", "xnystrace")
    ]


def _make(estimator: Any, n: int, samples: int) -> Estimate:
    def trace(key: Any, K: Any) -> Any:
        operator = lineax.MatrixLinearOperator(K, tags=lineax.positive_semidefinite_tag)
        return estimator.estimate(key, operator, samples)[0]

    return trace
