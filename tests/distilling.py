"""A network and features to be distilled, and the regression that is to come of it, by explicit inverses."""

import array_api_compat
import numpy as np

import ntkest
from ntkest.linearization import beside, host
from tests.arrays import accuracy
from tests.networks import available, functional, network

SIZES, N, O = (4, 16, 3), 24, 3  # noqa: E741
P = 4 * 16 + 16 + 16 * 3 + 3
NET = network(SIZES, seed=10, N=N)
OTHERS = np.random.default_rng(5).standard_normal((7, 4))
CLASSES = NET.outputs().argmax(1)
DRAW = np.random.default_rng(0)
PHI, SAID = DRAW.standard_normal((20, 3, 50)), DRAW.standard_normal((20, 3))
NEW, NEW_SAID = DRAW.standard_normal((6, 3, 50)), DRAW.standard_normal((6, 3))


def explicit(A):
    """A linearization with the Jacobian A and the network's outputs."""
    J = ntkest.from_jacobian(A, (N, O))
    J.outputs = NET.outputs()
    return J


def posed(framework):
    """``(f, params, inputs)`` and other inputs beside them."""
    f, params, x = functional(NET, framework)
    return (f, params, x), beside(array_api_compat.array_namespace(x), OTHERS, x)


ONE = next((name for name in ("numpy", "torch", "jax") if name in available()), None)
"""The framework that is quickest with small networks: for what is the same in all."""


def dual(features, targets, new, ridge=1e-4):
    """Class ridge regression by explicit inverses: of (s, O, k), (s, O) for (n, O, k)."""
    features, targets, new = (np.asarray(host(a), dtype=np.float64) for a in (features, targets, new))
    found = np.empty(new.shape[:2])
    for c in range(features.shape[1]):
        K = features[:, c] @ features[:, c].T
        shifted = K + ridge * np.trace(K) / len(K) * np.eye(len(K))
        found[:, c] = new[:, c] @ features[:, c].T @ np.linalg.inv(shifted) @ targets[:, c]
    return found


def sampled(framework):
    """Gradients of the first example, by whose shapes work is planned where layers give factors."""
    return 0 if framework == "numpy" else O


def close(found, wanted, scale=1.0):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(host(found), wanted, rtol=0, atol=scale * accuracy(found) * np.abs(wanted).max())
