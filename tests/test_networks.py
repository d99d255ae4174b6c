"""Every backend has the Jacobian that is computed by hand."""

import numpy as np
import pytest

from ntkest.testing import to_host
from tests.networks import linearized, mlp, network


@pytest.mark.parametrize("activation", ["tanh", "sin", "relu"])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (2, 5, 3, 1)], ids=str)
def test_jacobian_by_hand_equals_differences(sizes, activation):
    net = network(sizes, activation=activation)
    columns = []
    for layer in net.params:
        for array in layer:
            for index in np.ndindex(array.shape):
                kept, values = array[index], []
                for step in (1e-6, -1e-6):
                    array[index] = kept + step
                    values.append(net.outputs().ravel())
                array[index] = kept
                columns.append((values[0] - values[1]) / 2e-6)
    np.testing.assert_allclose(net.jacobian(), np.stack(columns, axis=1), atol=1e-8)


@pytest.mark.parametrize("activation", ["tanh", "sin", "relu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend_has_the_jacobian_by_hand(backend, activation, dtype):
    J, A = mlp(backend, (3, 4, 2), seed=1, activation=activation, N=5, dtype=dtype)
    assert J.param_names == ("0.0", "0.1", "1.0", "1.1")
    assert J.examples == (0, 5)
    xp = J.xp
    epsilon = float(xp.finfo(J.outputs.dtype).eps)  # jax narrows float64 unless told otherwise
    identity = xp.astype(xp.eye(A.shape[0]), J.outputs.dtype)
    rows = np.concatenate([to_host(block) for block in J.vjp(identity)], axis=1)
    np.testing.assert_allclose(rows, A, atol=50 * epsilon)


def test_outputs_of_every_framework_are_those_by_hand(framework):
    net = network()
    J = linearized(net, framework)
    epsilon = float(J.xp.finfo(J.outputs.dtype).eps)
    np.testing.assert_allclose(to_host(J.outputs), net.outputs(), atol=50 * epsilon)
