"""Slow: coverage and bias of every estimator on kernels with known spectra, over 400 seeds."""

import numpy as np
import pytest
import scipy.stats

import ntkest
from ntkest.inference import effective_rank_of, frobenius_norm_of, trace_of
from ntkest.quantities import measure
from tests import oracle

SEEDS = 400
SIZE = 300


@pytest.mark.slow
@pytest.mark.parametrize("passes", [48, 120])
@pytest.mark.parametrize(
    "method",
    [
        "reverse",
        "forward",
        "hutchinson",
        "hutch++",
        "hutch++jv",
        "nystrom++",
        "adaptive-hutch++",
        "xnystrace",
        "xtrace",
        "xtrace-power",
    ],
)
@pytest.mark.parametrize("name", oracle.spectra(SIZE))
def test_bias_and_coverage(name, method, passes):
    """The 95 % interval covers at least 90 %; more than 99 % is right only where there is next to no variance."""
    A = oracle.with_spectrum(oracle.spectra(SIZE)[name], SIZE)
    J, K = ntkest.from_jacobian(A), oracle.kernel(A)
    truth = np.array([oracle.trace(K), oracle.frobenius_norm(K), oracle.effective_rank(K)])
    quantities = [trace_of(0), frobenius_norm_of(0), effective_rank_of(0)]
    values, hits = [], []
    for seed in range(SEEDS):
        found = measure(J, quantities, method=method, passes=passes, seed=seed)
        values.append([float(e) for e in found])
        hits.append([low <= t <= high for t, (low, high) in zip(truth, (e.interval(0.95) for e in found), strict=True)])
    values = np.array(values)
    spread = values.std(axis=0, ddof=1)
    floor = 1e-13 * truth
    assert abs(values[:, 0].mean() - truth[0]) < 5 * spread[0] / np.sqrt(SEEDS) + floor[0]
    squares = values[:, 1] ** 2
    assert abs(squares.mean() - truth[1] ** 2) < 5 * squares.std(ddof=1) / np.sqrt(SEEDS) + floor[1] * truth[1]
    counts = np.sum(hits, axis=0)
    assert (counts >= scipy.stats.binom.ppf(0.01, SEEDS, 0.90)).all(), counts / SEEDS
