"""A single output whose mean is taken away: K = 0, by every estimator."""

import numpy as np
import pytest

import ntkest

JACOBIAN = {"layer.weight": np.ones((1, 5)), "layer.bias": np.ones((1, 1)), "scale": np.ones((1, 2))}


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize(
    "method", ["reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "nystrom++", "adaptive-hutch++"]
)
def test_traces_and_norms_are_zero(method, shape, by):
    J = ntkest.from_jacobian(JACOBIAN, shape)
    for quantity in (ntkest.trace, ntkest.frobenius_norm):
        e = quantity(J, method=method, passes=60, centered=True, by=by)
        assert all(float(part) == float(part.std_error) == 0 for _, part in e.walk())


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("method", ["reverse", "forward", "hutchinson", "nystrom++"])
def test_the_diagonal_is_zero(method, shape, by):
    found = ntkest.diagonal(ntkest.from_jacobian(JACOBIAN, shape), method=method, passes=60, centered=True, by=by)
    assert found.value.shape == shape
    assert np.all(found.value == 0)
    assert np.all(found.std_error == 0)
