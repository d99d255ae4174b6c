"""The same spectrum, error bars and passes in every framework, from the same probes."""

import jax
import numpy as np
import pytest

import ntkest
from tests.networks import linearized, network

NET = network((4, 6, 3), seed=1, N=12)
BACKENDS = ("dense-strict", "numpy", "torch", "jax")
CALLS = {
    "logdet": lambda J: ntkest.logdet(J, 0.1, method="quadrature", passes=320),
    "entropic rank": lambda J: ntkest.entropic_rank(J, method="quadrature", passes=340),
    "stable rank": ntkest.stable_rank,
    "condition number": lambda J: ntkest.condition_number(J, 0.1, method="krylov"),
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", CALLS)
def test_estimates_agree(name):
    wanted = CALLS[name](linearized(NET, "dense-numpy"))
    for backend in BACKENDS:
        found = CALLS[name](linearized(NET, backend))
        assert found.passes == wanted.passes, backend
        assert float(found) == pytest.approx(float(wanted), rel=1e-9), backend
        assert found.interval() == pytest.approx(wanted.interval(), rel=1e-6), backend


def test_eigenvalues_agree():
    wanted = ntkest.eigenvalues(linearized(NET, "dense-numpy"), 4, method="krylov")
    for backend in BACKENDS:
        found = ntkest.eigenvalues(linearized(NET, backend), 4, method="krylov")
        assert found.passes == wanted.passes, backend
        np.testing.assert_allclose(found.values, wanted.values, rtol=1e-10, err_msg=backend)
