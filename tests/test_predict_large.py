"""Prediction where the kernel is too large: Nyström on drawn pivots, and conjugate gradients without a kernel."""

import numpy as np
import pytest

import ntkest
from ntkest import predict
from tests.arrays import NAMESPACES, accuracy, asarray
from tests.networks import linearized, mlp, network
from tests.oracle import with_spectrum

N, O, P = 20, 3, 90  # noqa: E741 - the number of outputs of an example
DRAW = np.random.default_rng(0)
A = DRAW.standard_normal((N * O, P))
Y = DRAW.standard_normal((N, O))
J = ntkest.from_jacobian(A, (N, O))
K = A @ A.T


@pytest.fixture(params=NAMESPACES)
def namespace(request):
    return request.param


def test_pivots_of_all_rows_give_the_kernel_back(namespace):
    found = predict.pivoted_cholesky(asarray(namespace, K), N * O)
    assert sorted(found.pivots) == list(range(N * O))
    np.testing.assert_allclose(
        np.asarray(found.factor @ found.factor.T), K, atol=accuracy(found.factor) * np.abs(K).max()
    )


def test_the_factor_is_the_projection_onto_the_columns_of_the_pivots(namespace):
    """K_:S K_SS⁻¹ K_S:, whatever the pivots, which the same seed draws in every namespace."""
    found = predict.pivoted_cholesky(asarray(namespace, K), 7, seed=3)
    assert found.pivots.tolist() == predict.pivoted_cholesky(K, 7, seed=3).pivots.tolist()
    columns = K[:, found.pivots]
    wanted = columns @ np.linalg.solve(K[np.ix_(found.pivots, found.pivots)], columns.T)
    np.testing.assert_allclose(
        np.asarray(found.factor @ found.factor.T), wanted, atol=accuracy(found.factor) * np.abs(K).max()
    )
    assert found.residual == pytest.approx(np.trace(K - wanted) / np.trace(K), rel=1e-4)


def test_columns_from_a_function_are_enough():
    asked = []

    def columns(indices):
        asked.append(len(indices))
        return K[:, indices]

    found = predict.pivoted_cholesky(columns, 10, np.diagonal(K), seed=1)
    assert found.pivots.tolist() == predict.pivoted_cholesky(K, 10, seed=1).pivots.tolist()
    assert sum(asked) < 30


def test_a_low_rank_is_noticed():
    low = A[:, :4] @ A[:, :4].T
    found = predict.pivoted_cholesky(low, 12)
    assert len(found.pivots) == 4
    assert found.residual < 1e-12
    np.testing.assert_allclose(found.factor @ found.factor.T, low, atol=1e-10)


@pytest.mark.parametrize("block", [1, 5, 40])
def test_proposing_several_pivots_does_not_change_their_law(block):
    """The first two pivots: diagonal entries, then what is left of them. Frequencies of 4,000 seeds within 5 σ."""
    rows = np.random.default_rng(5).standard_normal((4, 3)) * [[1], [2], [1], [0.5]]
    small = rows @ rows.T
    wanted, seeds = np.zeros((4, 4)), 4000
    diagonal = np.diagonal(small)
    for i in range(4):
        left = diagonal - small[i] ** 2 / small[i, i]
        wanted[i] = diagonal[i] / diagonal.sum() * np.maximum(left, 0) / left.sum()
    counts = np.zeros((4, 4))
    for seed in range(seeds):
        counts[tuple(predict.pivoted_cholesky(small, 2, block=block, seed=seed).pivots)] += 1
    spread = np.sqrt(wanted * (1 - wanted) / seeds)
    assert (np.abs(counts / seeds - wanted) <= 5 * spread + 1e-12).all()


def test_the_error_is_near_that_of_the_best_rank():
    """Twice the rank of a fast spectrum leaves no more than the best approximation of the rank, here on average."""
    factor = with_spectrum(0.8 ** np.arange(60), 60, seed=2)
    kernel = factor @ factor.T
    best = 0.8**10
    left = [predict.pivoted_cholesky(kernel, 20, seed=seed).residual for seed in range(20)]
    assert np.mean(left) < best


def test_nystrom_on_all_rows_is_the_whole_fit(namespace):
    fit = predict.kernel_ridge(K, Y, 5.0)
    found = predict.nystrom_ridge(asarray(namespace, K), asarray(namespace, Y), N * O, 5.0)
    predictions = found.predict(asarray(namespace, K[:9][:, found.pivots]))
    np.testing.assert_allclose(np.asarray(predictions), fit.predict(K[:9]), atol=20 * accuracy(predictions))
    left = found.left_out().predictions
    np.testing.assert_allclose(np.asarray(left), fit.left_out().predictions, atol=50 * accuracy(left))


@pytest.mark.parametrize("size", [N, N * O], ids=["shared", "full"])
def test_nystrom_is_ridge_regression_on_the_projected_kernel(size):
    kernel = np.asarray(ntkest.pntk(J)) if size == N else K
    targets = (kernel @ DRAW.standard_normal((size, N * O // size))).reshape(N, O) + 100 * Y
    found = predict.nystrom_ridge(kernel, targets, 8, "loo", seed=2)
    chosen = kernel[:, found.pivots]
    projected = chosen @ np.linalg.solve(kernel[np.ix_(found.pivots, found.pivots)], chosen.T)
    fit = predict.kernel_ridge(projected, targets, found.ridge)
    np.testing.assert_allclose(found.predict(chosen), fit.predict(projected), atol=1e-8)
    np.testing.assert_allclose(found.left_out().predictions, fit.left_out().predictions, atol=1e-8)
    for other in (found.ridge / 3, found.ridge * 3):
        assert (
            predict.nystrom_ridge(kernel, targets, 8, other, seed=2).left_out().error >= found.left_out().error - 1e-12
        )


def test_conjugate_gradients_solve_all_columns(namespace):
    shifted, values = asarray(namespace, K + 3 * np.eye(N * O)), DRAW.standard_normal((N * O, 3)) * [1, 1e-6, 0]
    found = predict.conjugate_gradients(lambda v: shifted @ v, asarray(namespace, values), rtol=1e-5)
    wanted = np.linalg.solve(K + 3 * np.eye(N * O), values)
    scale = np.abs(wanted).max(axis=0) + 1e-30
    np.testing.assert_allclose(np.asarray(found.values) / scale, wanted / scale, atol=1e-3)
    assert found.converged
    assert found.residuals[-1] <= 1e-5 < found.residuals[-2]
    left = values - (K + 3 * np.eye(N * O)) @ np.asarray(found.values, dtype=float)
    assert np.linalg.norm(left[:, 0]) / np.linalg.norm(values[:, 0]) < 1e-4


def test_a_budget_that_ends_is_said():
    found = predict.conjugate_gradients(lambda v: K @ v, Y.reshape(-1, 1), max_iterations=2)
    assert not found.converged
    assert found.iterations == 2
    assert len(found.residuals) == 3


def test_the_exact_inverse_as_preconditioner_takes_one_iteration():
    inverse = np.linalg.inv(K)
    found = predict.conjugate_gradients(lambda v: K @ v, Y.reshape(-1, 1), preconditioner=lambda v: inverse @ v)
    assert found.iterations == 1
    np.testing.assert_allclose(found.values, inverse @ Y.reshape(-1, 1), rtol=1e-6)


@pytest.mark.parametrize("initial", [True, False])
def test_a_linearised_network_is_fitted_without_its_kernel(backend, initial):
    net = network((3, 16, 2), N=10)
    here, jacobian = mlp(backend, (3, 16, 2), N=10)
    there = network((3, 16, 2), N=4)
    there.x[:] = DRAW.standard_normal(there.x.shape)
    other, rows = linearized(there, backend), there.jacobian()
    start, start_there = np.asarray(here.outputs, dtype=float), np.asarray(other.outputs, dtype=float)
    targets = np.sin(net.x @ np.ones((3, 2)))
    xp = here.xp
    found = predict.linearized_ridge(
        here, xp.asarray(targets, dtype=here.outputs.dtype), 0.5, initial=initial, rtol=1e-6
    )
    aims = (targets - initial * start).ravel()
    alpha = np.linalg.solve(jacobian @ jacobian.T + 0.5 * np.eye(20), aims)
    tolerance = 1e-4 if "float64" in str(here.outputs.dtype) else 1e-2
    np.testing.assert_allclose(np.asarray(found.coefficients).ravel(), alpha, atol=tolerance)
    predicted = (rows @ jacobian.T @ alpha).reshape(4, 2) + initial * start_there
    np.testing.assert_allclose(np.asarray(found.predict(other)), predicted, atol=tolerance)
    assert found.converged
    assert found.passes == 1 + (len(found.residuals) - 1) * (1 + here.passes_per_jvp)


def test_the_pntk_makes_a_good_preconditioner():
    """Of a wide network, at a small ridge."""
    net = network((6, 400, 3), N=20, seed=4)
    here = linearized(net, "dense-numpy")
    ridge = 1e-4 * float(np.trace(np.asarray(ntkest.pntk(here)))) / 20
    targets = np.arange(20) % 3
    plain = predict.linearized_ridge(here, targets, ridge)
    helped = predict.linearized_ridge(
        here, targets, ridge, preconditioner=predict.kernel_ridge(ntkest.pntk(here), targets, ridge)
    )
    assert helped.converged
    assert len(helped.residuals) < 0.7 * len(plain.residuals)
    np.testing.assert_allclose(helped.predict(here), plain.predict(here), atol=2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predict.pivoted_cholesky(K, 0), "rank= takes a positive"),
        (lambda: predict.pivoted_cholesky(K, 2.5), "rank= takes a positive"),
        (lambda: predict.pivoted_cholesky(K, 100), "more than the 60 rows"),
        (lambda: predict.pivoted_cholesky(K, 3, block=0), "block= takes a positive"),
        (lambda: predict.pivoted_cholesky(K, 3, np.diagonal(K)), "goes with a function"),
        (lambda: predict.pivoted_cholesky(lambda i: K[:, i], 3), "diagonal= is needed"),
        (lambda: predict.pivoted_cholesky(lambda i: K[:, i], 3, K), "diagonal of a kernel has shape"),
        (lambda: predict.pivoted_cholesky(lambda i: K[i], 3, np.diagonal(K)), "columns of the kernel have shape"),
        (lambda: predict.pivoted_cholesky(-K, 3), "finite and not negative"),
        (lambda: predict.nystrom_ridge(K, Y, 5, 0.0), "positive"),
        (lambda: predict.nystrom_ridge(K, Y, 5, 1.0).predict(K), "the pivots has shape"),
        (lambda: predict.conjugate_gradients(lambda v: v, [1.0]), "take an array"),
        (lambda: predict.conjugate_gradients(lambda v: v, np.ones(3)), "not one of shape"),
        (lambda: predict.conjugate_gradients(lambda v: v, np.ones((3, 1)), rtol=2.0), "between 0 and 1"),
        (lambda: predict.conjugate_gradients(lambda v: v, np.ones((3, 1)), max_iterations=1.5), "max_iterations="),
        (lambda: predict.linearized_ridge(K, Y, 1.0), "a linearization is wanted"),
        (lambda: predict.linearized_ridge(J, Y, 0.0), "positive"),
        (lambda: predict.linearized_ridge(J, Y[:, :2], 1.0), "targets have shape"),
        (lambda: predict.linearized_ridge(J, Y, 1.0).predict(ntkest.from_jacobian(A[:, :5])), "other parameters"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()


def test_one_mode_is_not_enough():
    from scipy.sparse.linalg import LinearOperator

    forward = ntkest.from_jacobian(LinearOperator((N * O, P), matvec=lambda v: A @ v, dtype="float64"), (N, O))
    with pytest.raises(ntkest.NTKError, match="but J has jvp only"):
        predict.linearized_ridge(forward, Y, 1.0)
