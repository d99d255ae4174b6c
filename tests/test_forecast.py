"""Forecasts against what estimators do on spectra that they are given."""

from itertools import pairwise

import numpy as np
import pytest

import ntkest
from ntkest.estimators import XNYSTRACE
from ntkest.forecast import Sketch, Spectrum, fit
from ntkest.inference import trace_of
from ntkest.quantities import pose
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


@pytest.mark.parametrize("samples", [8, 20])
@pytest.mark.parametrize("method", ["xnystrace", "xtrace"])
@pytest.mark.parametrize("name", ["exponential", "power-1", "power-2", "flat"])
def test_errors_of_norms_and_ranks_are_those_of_many_seeds(name, method, samples):
    """Within a factor of 4: those of a norm come from rare large misses, those of a rank cancel in part."""
    values = oracle.spectra(N)[name]
    J = ntkest.from_jacobian(oracle.with_spectrum(values, N))
    errors = FORMS[method](known(values), samples)
    passes = samples * (2 if method == "xnystrace" else 4)
    for quantity, forecast in (("frobenius_norm", errors.square / 2), ("effective_rank", errors.rank)):
        truth = getattr(oracle, quantity)(np.diag(values))
        runs = [float(getattr(ntkest, quantity)(J, method=method, passes=passes, seed=s)) for s in range(60)]
        assert 1 / 4 < forecast / np.sqrt(np.mean((np.array(runs) / truth - 1) ** 2)) < 4, quantity


def sketched(values, samples, seed=0):
    problem = pose(ntkest.from_jacobian(oracle.with_spectrum(values, len(values))), [trace_of(0)])
    return XNYSTRACE.sketch(problem, XNYSTRACE.extend(problem, None, XNYSTRACE.draw(problem, seed, 0, samples)), 0)


def test_a_fit_sees_a_gap_that_the_sketch_has_crossed():
    """Ten large eigenvalues and many small ones, from 16 samples, of which the upper half shows no gap."""
    values = np.where(np.arange(N) < 10, 1.0, 1e-4)
    spectrum = fit(sketched(values, 16))
    large = spectrum.values > 0.1
    assert spectrum.counts[large].sum() == 10
    np.testing.assert_allclose(spectrum.values[large], 1.0, rtol=0.3)
    assert spectrum.counts[~large] @ spectrum.values[~large] < 0.1


@pytest.mark.parametrize("background", [1e-4, 1e-3, 1e-2])
def test_a_fit_sees_where_a_plateau_ends(background):
    """Fifty eigenvalues of 1, from 50 samples: XTrace, which lacks one of them each time, errs more than XNysTrace."""
    values = np.where(np.arange(400) < 50, 1.0, background)
    wanted = known(values).range(50).square
    for seed in range(5):
        spectrum = fit(sketched(values, 50, seed))
        large = spectrum.values > 0.5
        assert spectrum.counts[large].sum() == pytest.approx(50, rel=0.15)
        np.testing.assert_allclose(spectrum.values[large], 1.0, rtol=0.1)
        assert 1 / 3 < spectrum.range(50).square / wanted < 3
        assert spectrum.nystrom(100, crowded=True).square < spectrum.range(50).square


def test_the_head_makes_good_what_the_sketch_misses():
    """The needs of the fit are those of the truth, on average over sketches."""
    values = oracle.spectra(N)["power-1"]
    wanted = known(values).range(20).trace
    found = [fit(sketched(values, 24, seed)).range(20).trace for seed in range(10)]
    assert 0.8 < np.median(found) / wanted < 1.25


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


@pytest.mark.parametrize("many", [N // 2, N - 10])
def test_a_fit_sees_a_multiple_eigenvalue_and_how_often_it_is_there(many):
    """Ten large eigenvalues on a level that fills half of the room, or all of it."""
    values = np.concatenate([np.linspace(100, 10, 10), np.ones(many), np.zeros(N - 10 - many)])
    spectrum = fit(sketched(values, 24))
    level = int(np.argmax(spectrum.counts))
    assert spectrum.values[level] == pytest.approx(1, rel=0.01)
    assert spectrum.counts[level] == pytest.approx(many, rel=0.3 if many < N - 10 else 0)
    for form in (Spectrum.nystrom, Spectrum.range):
        assert 0.7 < form(spectrum, 24).trace / form(known(values), 24).trace < 1.5


def test_auto_goes_on_where_few_samples_see_spikes_alone():
    """On a level, the samples of a pilot are all of large eigenvalues: one-sided probes look nearly as good."""
    values = np.concatenate([np.linspace(100, 10, 10), np.ones(1490)])
    J = ntkest.from_jacobian(oracle.with_spectrum(values, 1500))
    for seed in range(5):
        assert float(ntkest.trace(J, passes=72, seed=seed)) == pytest.approx(values.sum(), rel=3e-4)
