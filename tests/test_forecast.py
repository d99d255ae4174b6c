"""Forecasts against what estimators do on spectra that they are given."""

from itertools import pairwise

import numpy as np
import pytest

import ntkest
from ntkest.forecast import Sketch, Spectrum, fit
from tests import oracle

N = 200
FORMS = {"reverse": Spectrum.one_sided, "xnystrace": Spectrum.nystrom, "xtrace": Spectrum.range}


def known(values):
    return Spectrum(np.asarray(values, float), np.ones(len(values)), len(values))


@pytest.mark.parametrize("method", FORMS)
@pytest.mark.parametrize("name", ["power-1", "power-2", "flat"])
def test_errors_on_a_known_spectrum_are_those_of_many_seeds(name, method):
    """Within a factor of 2, on spectra without gaps."""
    values = oracle.spectra(N)[name]
    J = ntkest.from_jacobian(oracle.with_spectrum(values, N))
    runs = np.array([float(ntkest.trace(J, method=method, passes=48, seed=s)) for s in range(100)])
    samples = {"reverse": 48, "xnystrace": 24, "xtrace": 16}[method]
    forecast = FORMS[method](known(values), samples).trace
    assert 0.5 < forecast / np.sqrt(np.mean((runs / values.sum() - 1) ** 2)) < 2


def test_no_projection_leaves_more_than_a_smaller_one():
    spectrum = known(oracle.spectra(N)["power-1"])
    for power in (1, 2):
        left = [spectrum.residual(q, power)[:2] for q in range(1, N, 7)]
        assert all(more > less for pair, after in pairwise(left) for more, less in zip(pair, after, strict=True))
        assert left[0][0] < spectrum.trace
        assert spectrum.residual(N, power)[0] < 1e-6 * spectrum.trace


@pytest.mark.parametrize("dimension", [50, 2000, 10**7])
def test_a_fitted_spectrum_has_the_trace_and_the_dimension_that_were_seen(dimension):
    ritz = 2.0 ** -np.arange(8.0)
    spectrum = fit(Sketch(ritz, 3.0, 0.01, dimension))
    assert spectrum.trace == pytest.approx(3.0, rel=1e-6)
    assert spectrum.counts.sum() == dimension
    assert len(spectrum.values) < 400


def test_what_is_all_seen_has_no_tail():
    spectrum = fit(Sketch(np.array([2.0, 1.0, 1e-13, 1e-14]), 3.0, None, 100))
    assert list(spectrum.values) == [2.0, 1.0]
