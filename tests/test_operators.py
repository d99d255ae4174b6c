"""J as a SciPy operator: the explicit Jacobian, in every backend."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, lsmr, svds

import ntkest
from tests.networks import mlp

DRAW = np.random.default_rng(0)


def test_products_are_those_of_the_explicit_jacobian(backend):
    J, A = mlp(backend)
    op = J.to_scipy()
    assert isinstance(op, LinearOperator)
    assert op.shape == A.shape
    assert "float64" in str(J.outputs.dtype) or op.dtype == np.float32
    tolerance = {"rtol": 1e-4, "atol": 1e-4 if op.dtype == np.float32 else 1e-12}
    v, w = DRAW.standard_normal((A.shape[1], 3)), DRAW.standard_normal((A.shape[0], 3))
    np.testing.assert_allclose(op @ v, A @ v, **tolerance)
    np.testing.assert_allclose(op @ v[:, 0], A @ v[:, 0], **tolerance)
    np.testing.assert_allclose(op.T @ w, A.T @ w, **tolerance)
    np.testing.assert_allclose(op.rmatvec(w[:, 0]), A.T @ w[:, 0], **tolerance)
    np.testing.assert_allclose((op @ op.T) @ w, A @ (A.T @ w), **tolerance)


def test_scipy_solves_and_decomposes_with_it(backend):
    J, A = mlp(backend)
    op, target = J.to_scipy(), DRAW.standard_normal(A.shape[0])
    found = np.sort(svds(op, k=3, return_singular_vectors=False, v0=np.ones(min(A.shape))))
    np.testing.assert_allclose(found, np.linalg.svd(A, compute_uv=False)[2::-1], rtol=1e-4)
    weights = lsmr(op, target, damp=5.0)[0]
    wanted = A.T @ np.linalg.solve(A @ A.T + 25.0 * np.eye(len(A)), target)
    np.testing.assert_allclose(weights, wanted, atol=1e-3)


def test_from_jacobian_takes_it_back():
    J, A = mlp("dense-numpy")
    np.testing.assert_allclose(ntkest.from_jacobian(J.to_scipy()).vjp(np.eye(len(A)))[0], A)


def test_one_mode_stays_one_mode():
    A = DRAW.standard_normal((4, 6))
    forward = ntkest.from_jacobian(LinearOperator((4, 6), matvec=lambda v: A @ v, dtype="float64"))
    with pytest.raises(NotImplementedError):
        forward.to_scipy().rmatvec(np.ones(4))
    assert ntkest.from_jacobian(forward.to_scipy()).modes == {"jvp"}
