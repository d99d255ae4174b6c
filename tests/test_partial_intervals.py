"""Error bars of partial traces: they are the spread, and their intervals cover."""

import numpy as np
import pytest
import scipy.stats

import ntkest
from tests import oracle
from tests.partial_cases import dense


def coverage(name, method, passes, over, size, seeds):
    """Share of entries in their 95 % intervals, of totals in theirs, and mean error bar over spread."""
    B = oracle.with_spectrum(oracle.spectra(size)[name], size)
    J, wanted = ntkest.from_jacobian(B, (size // 10, 10)), (B**2).sum(axis=1).reshape(-1, 10)
    wanted = wanted if len(over) == 2 else wanted.sum(axis=1 - over[0])
    hits, totals, values, errors = [], [], [], []
    for seed in range(seeds):
        found = ntkest.partial_trace(J, over, method=method, passes=passes, seed=seed)
        low, high = found.interval(0.95)
        bottom, top = found.total.interval(0.95)
        hits.append((low <= wanted) & (wanted <= high))
        totals.append(bottom <= wanted.sum() <= top)
        values.append(found.value)
        errors.append(found.std_error)
    return np.mean(hits), np.mean(totals), np.mean(errors) / np.mean(np.std(values, axis=0, ddof=1))


@pytest.mark.parametrize("over", [(0,), (0, 1)], ids=["blocks", "diagonal"])
@pytest.mark.parametrize("method", ["forward", "hutchinson", "nystrom++"])
@pytest.mark.parametrize("name", ["exponential", "flat", "rank-5"])
def test_intervals_cover_and_error_bars_are_the_spread(name, method, over):
    entries, totals, ratio = coverage(name, method, 48, over, size=100, seeds=60)
    assert entries >= 0.9
    assert totals >= 0.85  # of 60
    if not (name == "rank-5" and method == "nystrom++"):
        assert entries <= 0.99
        assert 0.75 < ratio < 1.25


@pytest.mark.slow
@pytest.mark.parametrize("over", [(0,), (0, 1)], ids=["blocks", "diagonal"])
@pytest.mark.parametrize("passes", [24, 48, 120])
@pytest.mark.parametrize("method", ["forward", "reverse", "hutchinson", "nystrom++"])
@pytest.mark.parametrize("name", ["exponential", "power-1", "power-2", "step", "flat", "rank-5"])
def test_coverage_over_many_seeds(name, method, passes, over):
    if method == "reverse":
        passes, over = 10 * passes, (1,)  # ten blocks
    entries, totals, _ = coverage(name, method, passes, over, size=200, seeds=400)
    assert entries >= 0.92
    assert totals >= scipy.stats.binom.ppf(0.01, 400, 0.90) / 400


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_intervals_are_those_of_scipy(level):
    found = ntkest.diagonal(dense(), method="nystrom++", passes=30)
    share, degrees = found.law.share, found.law.degrees
    assert found.about["samples"] == 10
    assert (degrees >= 10).all()
    low, high = found.interval(level)
    upper, lower = (scipy.stats.chi2.ppf(q, degrees) for q in (0.5 + level / 2, 0.5 - level / 2))
    np.testing.assert_allclose(low, found.value * (share + (1 - share) * degrees / upper), rtol=1e-9)
    np.testing.assert_allclose(high, found.value * (share + (1 - share) * degrees / lower), rtol=1e-9)
    two = ntkest.diagonal(dense(), method="hutchinson", passes=30)
    low, high = two.interval(level)
    t = scipy.stats.t.ppf(0.5 + level / 2, 14)
    np.testing.assert_allclose(high, two.value + t * two.std_error, rtol=1e-9)
    positive = two.value > 0
    np.testing.assert_allclose(low[positive], np.maximum(two.value - t * two.std_error, 0)[positive], atol=1e-12)
