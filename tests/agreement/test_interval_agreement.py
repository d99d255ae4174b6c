"""Intervals and error bars, and not just values, are the same whether a framework compiles the statistics or not."""

import jax
import pytest

import ntkest
from tests.networks import linearized, network


@pytest.fixture(autouse=True)
def float64():
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("method", ["reverse", "hutch++"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_error_bars_equal_those_of_numpy(backend, method):
    net = network(sizes=(3, 8, 4))
    reference, J = linearized(net, "numpy"), linearized(net, backend)
    wanted = ntkest.summary(reference, net.outputs(), method=method, passes=60)
    found = ntkest.summary(J, J.outputs, method=method, passes=60)
    for name, estimate in wanted.items():
        assert float(found[name]) == pytest.approx(float(estimate), rel=1e-9)
        assert float(found[name].std_error) == pytest.approx(float(estimate.std_error), rel=1e-6)
        assert found[name].interval() == pytest.approx(estimate.interval(), rel=1e-6)
