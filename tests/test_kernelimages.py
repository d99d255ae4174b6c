"""Sketches that follow from Kω alone beside those from gradients: the same numbers, also where the rank ends."""

from itertools import pairwise

import numpy as np
import pytest

import ntkest
from ntkest.estimators import XNYSTRACE
from ntkest.inference import effective_rank_of
from ntkest.quantities import pose
from tests import oracle
from tests.networks import linearized, network

SPECTRA = {
    "power-2": 1 / np.arange(1.0, 61) ** 2,
    "steep": 10.0 ** -np.arange(60.0),
    "rank-5": np.where(np.arange(60) < 5, 1.0, 0.0),
    "flat": np.linspace(3, 1, 60),
}


def wide(spectrum, seed=0):
    """A kernel of 60 outputs and 600 parameters, and its square root: the same probes see the same of both."""
    A = oracle.with_spectrum(SPECTRA[spectrum], 60, seed, 600)
    U, S, _ = np.linalg.svd(A, full_matrices=False)
    return A, U * S @ U.T


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("steps", [(0, 24), (0, 4, 11, 24)])
def test_gradients_that_are_dropped_are_not_missed(spectrum, steps):
    """K is the same, and so are its probes; the one way keeps what it orthonormalises, and the other does not."""
    values = []
    for A in wide(spectrum):
        problem = pose(ntkest.from_jacobian(A), [effective_rank_of(0)])
        state = None
        for start, stop in pairwise(steps):
            state = XNYSTRACE.extend(problem, state, XNYSTRACE.draw(problem, 1, start, stop))
        assert bool(state.bases) == (A.shape[1] == 60)
        moments = XNYSTRACE.moments(problem, state)
        values.append([float(moments[key, 0].value[0]) for key in ("trace", "square")])
        values[-1] += [np.asarray(moments[key, 0].refits).ravel() for key in ("trace", "square")]
    for dropped, kept in zip(*values, strict=True):
        np.testing.assert_allclose(dropped, kept, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("method", ["xnystrace", "auto"])
def test_a_rank_below_the_number_of_samples_is_exact(method, scale):
    A = scale * wide("rank-5")[0]
    for quantity, truth in ((ntkest.trace, 5 * scale**2), (ntkest.frobenius_norm, 5**0.5 * scale**2)):
        for options in ({"passes": 60}, {"rtol": 1e-3}):
            e = quantity(ntkest.from_jacobian(A), method=method, **options)
            assert float(e) == pytest.approx(truth, rel=1e-12)
            assert float(e.std_error) < 1e-9 * truth


def test_a_kernel_of_zeros_is_zero():
    e = ntkest.trace(ntkest.from_jacobian(np.zeros((20, 200))), method="xnystrace", passes=20)
    assert float(e) == 0
    assert float(e.std_error) == 0


def test_nothing_of_the_size_of_the_parameters_is_kept():
    J = ntkest.from_jacobian(wide("power-2")[0])
    state = ntkest.trace(J, method="xnystrace", rtol=1e-3, state=True).state.state
    assert state.bases == ()
    assert all(block.shape[1] == 60 for blocks in state.images for block in blocks)


def test_networks_in_every_framework(backend):
    """In single precision where the framework's default is: rounding errors of Kω must not be taken for the kernel."""
    net = network((6, 40, 40, 3), seed=2, N=8)
    J, A = linearized(net, backend), net.jacobian()
    for quantity, truth in (
        (ntkest.trace, np.sum(A**2)),
        (ntkest.effective_rank, np.sum(A**2) ** 2 / np.sum((A @ A.T) ** 2)),
    ):
        e = quantity(J, method="xnystrace", passes=44)
        assert abs(float(e) - truth) < 5 * float(e.std_error) + 1e-4 * truth
        whole = quantity(J, method="xnystrace", passes=200)  # all of the 24 dimensions
        assert float(whole) == pytest.approx(truth, rel=1e-4)
