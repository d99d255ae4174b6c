"""The spectrum of the same network by every backend that is installed."""

import numpy as np
import pytest

import ntkest
from tests.networks import linearized, network

NET = network((5, 9, 4), seed=3, N=20, dtype="float32")  # 80 outputs, 94 parameters in four blocks


def reference():
    return np.sort(np.linalg.eigvalsh(NET.jacobian() @ NET.jacobian().T))[::-1]


@pytest.mark.parametrize("side", ["outputs", "parameters"])
def test_eigenvalues_and_vectors(backend, side):
    J = linearized(NET, backend)
    found = ntkest.eigenvalues(J, 5, method="krylov", vectors=side, tol=1e-5)
    assert found.method == "krylov"
    np.testing.assert_allclose(found.values, reference()[:5], rtol=1e-5)
    vectors = found.vectors if side == "outputs" else found.vectors[0]
    assert type(vectors) is type(J.outputs)
    images = J.vjp(found.vectors) if side == "outputs" else (J.jvp(found.vectors),)
    squares = sum(
        np.sum(np.asarray(image.detach() if hasattr(image, "detach") else image) ** 2, axis=1) for image in images
    )
    np.testing.assert_allclose(squares, found.values, rtol=1e-4)


def test_quadrature(backend):
    J, values = linearized(NET, backend), reference()
    values = np.maximum(values, 0)
    found = ntkest.logdet(J, 0.1, method="quadrature", passes=640)
    wanted = np.log(values + 0.1).sum()
    assert type(found.value) is type(J.outputs) or np.ndim(found.value) == 0
    assert abs(float(found) - wanted) < 4 * float(found.std_error)
    p = values / values.sum()
    rank = ntkest.entropic_rank(J, method="quadrature", passes=640)
    wanted = np.exp(-(p * np.log(np.maximum(p, 1e-300))).sum())
    assert abs(float(rank) - wanted) < 4 * float(rank.std_error)


def test_ratios_and_density(backend):
    J, values = linearized(NET, backend), reference()
    stable = ntkest.stable_rank(J, rtol=0.02)
    assert float(stable) == pytest.approx(values.sum() / values[0], rel=0.04)
    for method in ("exact", "krylov"):
        condition = ntkest.condition_number(J, 1.0, method=method)
        assert float(condition) == pytest.approx((values[0] + 1) / (max(values[-1], 0) + 1), rel=0.025)
    density = ntkest.spectral_density(J)
    assert density.moments[0] == pytest.approx(values.mean(), rel=1e-4)
