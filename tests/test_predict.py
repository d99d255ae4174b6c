"""Kernel ridge regression, Gaussian processes, gradient flow: against explicit inverses, loops and scikit-learn."""

import math

import numpy as np
import pytest
from scipy.linalg import expm

import ntkest
from ntkest import predict
from tests.arrays import NAMESPACES, accuracy, asarray

N, O, P, T = 12, 3, 60, 5  # noqa: E741 - the number of outputs of an example
DRAW = np.random.default_rng(0)
A, B = DRAW.standard_normal((N * O, P)), DRAW.standard_normal((T * O, P))
J, OTHER = ntkest.from_jacobian(A, (N, O)), ntkest.from_jacobian(B, (T, O))
Y, START, START_THERE = (DRAW.standard_normal((n, O)) for n in (N, N, T))
FULL = A @ A.T, B @ A.T, B @ B.T
SMALL = tuple(np.asarray(ntkest.pntk(*sides)) for sides in ((J,), (OTHER, J), (OTHER,)))
FORMS = {"shared": SMALL, "full": FULL}


def whole(kernel):
    """The kernel on all outputs: itself, or its product with I_O."""
    return kernel if kernel.shape[1] == N * O or kernel.shape == (T * O, T * O) else np.kron(kernel, np.eye(O))


@pytest.fixture(params=NAMESPACES)
def namespace(request):
    return request.param


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def close(found, wanted, scale=1.0):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(np.asarray(found), wanted, atol=accuracy(found) * scale * np.abs(wanted).max())


def test_a_fit_is_the_explicit_inverse_in_every_namespace(namespace, form):
    K, cross, prior = (asarray(namespace, k) for k in FORMS[form])
    fit = predict.kernel_ridge(K, asarray(namespace, Y), 3.0)
    inverse = np.linalg.inv(whole(FORMS[form][0]) + 3 * np.eye(N * O))
    k = whole(FORMS[form][1])
    close(fit.coefficients, (inverse @ Y.ravel()).reshape(N, O))
    close(fit.predict(cross), (k @ inverse @ Y.ravel()).reshape(T, O))
    close(fit.solve(asarray(namespace, START)), (inverse @ START.ravel()).reshape(N, O))
    posterior = whole(FORMS[form][2]) - k @ inverse @ k.T
    diagonal = asarray(namespace, np.diagonal(FORMS[form][2]))
    variance = np.diagonal(posterior).reshape(T, O)
    close(fit.variance(cross, diagonal), variance if form == "full" else variance[:, 0], scale=5)
    found = fit.covariance(cross, prior)
    close(found, posterior if form == "full" else posterior[::O, ::O], scale=5)
    for array in (fit.coefficients, fit.predict(cross), fit.variance(cross, diagonal), found):
        assert type(array) is type(K)
        assert array.dtype == K.dtype


@pytest.mark.parametrize("ridge", [3.0, "loo"])
def test_examples_left_out_are_those_of_a_loop(form, ridge):
    K = whole(FORMS[form][0])
    fit = predict.kernel_ridge(FORMS[form][0], Y, ridge)
    wanted = np.empty((N, O))
    for i in range(N):
        out = np.arange(i * O, (i + 1) * O)
        rest = np.setdiff1d(np.arange(N * O), out)
        solved = np.linalg.solve(K[np.ix_(rest, rest)] + fit.ridge * np.eye(len(rest)), Y.ravel()[rest])
        wanted[i] = K[np.ix_(out, rest)] @ solved
    found = fit.left_out()
    np.testing.assert_allclose(found.predictions, wanted, atol=1e-9)
    assert found.error == pytest.approx(np.mean((wanted - Y) ** 2))
    assert found.accuracy == np.mean(wanted.argmax(1) == Y.argmax(1))


def test_the_ridge_is_the_best_at_leaving_out(form):
    """No other ridge of a fine grid does better than by what a sixteenth of a decade can make of it."""
    teacher = np.sin(A @ DRAW.standard_normal(P)).reshape(N, O) + 0.5 * START
    K = FORMS[form][0]
    best = predict.kernel_ridge(K, teacher)
    errors = [predict.kernel_ridge(K, teacher, float(r)).left_out().error for r in np.geomspace(1e-6, 1e6, 400)]
    assert best.left_out().error <= min(errors) * (1 + 1e-3)
    assert predict.kernel_ridge(K, teacher, best.ridge).left_out().error == pytest.approx(best.left_out().error)


def test_float32_kernels_are_fitted_in_float64(form):
    K, cross, _ = (k.astype("float32") for k in FORMS[form])
    fit = predict.kernel_ridge(K, Y, 1e-3)
    solved = np.linalg.solve(whole(K.astype(float)) + 1e-3 * np.eye(N * O), Y.ravel())
    np.testing.assert_allclose(fit.coefficients, solved.reshape(N, O), rtol=1e-5, atol=1e-6)
    assert fit.predict(cross).dtype == np.float32


def test_scikit_learn_finds_the_same(form):
    sklearn_ridge = pytest.importorskip("sklearn.kernel_ridge")
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import PairwiseKernel

    K, cross, prior = FORMS[form]
    y = Y if form == "shared" else Y.ravel()
    fit = predict.kernel_ridge(K, Y, 2.0)
    theirs = sklearn_ridge.KernelRidge(alpha=2.0, kernel="precomputed").fit(K, y)
    np.testing.assert_allclose(fit.predict(cross).ravel(), theirs.predict(cross).ravel(), atol=1e-10)

    features, there = (A, B) if form == "full" else (root(J), root(OTHER))
    process = GaussianProcessRegressor(PairwiseKernel(metric="linear"), alpha=2.0, optimizer=None).fit(features, y)
    mean, deviation = process.predict(there, return_std=True)
    np.testing.assert_allclose(fit.predict(cross).ravel(), mean.ravel(), atol=1e-9)
    variance = fit.variance(cross, np.diagonal(prior)).ravel()
    np.testing.assert_allclose(variance, (deviation if form == "full" else deviation[:, 0]) ** 2, atol=1e-9)
    np.testing.assert_allclose(fit.log_likelihood(), np.sum(process.log_marginal_likelihood_value_), rtol=1e-10)


def root(side):
    """Features whose products are the pNTK: gradients of the sum of outputs over √O."""
    rows = np.asarray(side.vjp(np.eye(int(np.prod(side.outputs.shape))))[0])
    return rows.reshape(side.outputs.shape[0], O, P).sum(axis=1) / O**0.5


@pytest.mark.parametrize("time", [0.0, 1e-3, 0.05, 2.0, math.inf])
def test_gradient_flow_is_the_matrix_exponential(namespace, form, time):
    K, cross, _ = (asarray(namespace, k) for k in FORMS[form])
    flow = predict.gradient_flow(K, asarray(namespace, Y), asarray(namespace, START))
    explicit, k = whole(FORMS[form][0]), whole(FORMS[form][1])
    left = np.zeros_like(explicit) if time == math.inf else expm(-explicit * time)
    change = (Y - START).ravel()
    close(flow.outputs(time), Y - (left @ change).reshape(N, O), scale=5)
    learnt = k @ np.linalg.solve(explicit, change - left @ change)
    close(flow.predict(cross, time), learnt.reshape(T, O), scale=20)
    moved = flow.predict(cross, time, asarray(namespace, START_THERE))
    close(moved, START_THERE + learnt.reshape(T, O), scale=20)


def test_gradient_flow_is_what_small_steps_of_gradient_descent_do():
    """On the parameters of the linearised network, with the loss ½ Σ (f - y)²."""
    w, rate, steps = np.zeros(P), 1e-5, 4000
    for _ in range(steps):
        w -= rate * A.T @ (START.ravel() + A @ w - Y.ravel())
    flow = predict.gradient_flow(FULL[0], Y, START)
    np.testing.assert_allclose(flow.outputs(rate * steps), START + (A @ w).reshape(N, O), atol=2e-3)
    found = flow.predict(FULL[1], rate * steps, START_THERE)
    np.testing.assert_allclose(found, START_THERE + (B @ w).reshape(T, O), atol=2e-3)


def test_directions_without_kernel_are_never_learnt():
    low = A[:, :4]
    flow = predict.gradient_flow(low @ low.T, Y, START)
    inside = low @ np.linalg.pinv(low)
    wanted = START.ravel() + inside @ (Y - START).ravel()
    for time in (1e9, math.inf):
        np.testing.assert_allclose(flow.outputs(time).ravel(), wanted, atol=1e-9)
        weights = np.linalg.pinv(low) @ (Y - START).ravel()
        np.testing.assert_allclose(flow.predict(B[:, :4] @ low.T, time).ravel(), B[:, :4] @ weights, atol=1e-9)


def test_labels_are_centred_one_hot_rows(form):
    labels = np.arange(N) % O
    hot = np.eye(O)[labels] - 1 / O
    K, cross, _ = FORMS[form]
    wanted = predict.kernel_ridge(K, hot, 1.0).predict(cross)
    for given in (labels, labels.tolist()):
        np.testing.assert_allclose(predict.kernel_ridge(K, given, 1.0).predict(cross), wanted)


def test_the_full_kernel_knows_of_classes_that_no_label_has():
    found = predict.kernel_ridge(FULL[0], np.zeros(N, dtype=int), 1.0)
    assert found.coefficients.shape == (N, O)


def test_one_output_needs_no_axis():
    y = Y[:, 0]
    found = predict.kernel_ridge(SMALL[0], y, 1.0)
    assert found.predict(SMALL[1]).shape == (T,)
    assert found.left_out().predictions.shape == (N,)
    assert found.left_out().accuracy is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predict.kernel_ridge(SMALL[0].tolist(), Y, 1.0), "a kernel is an array"),
        (lambda: predict.kernel_ridge(SMALL[0][:, :4], Y, 1.0), "a kernel is square"),
        (lambda: predict.kernel_ridge(np.arange(9).reshape(3, 3), Y, 1.0), "real floating"),
        (lambda: predict.kernel_ridge(A[:, : N * O], Y, 1.0), "not symmetric"),
        (lambda: predict.kernel_ridge(SMALL[0] * np.nan, Y, 1.0), "NaN or infinity"),
        (lambda: predict.kernel_ridge(SMALL[0], Y * np.inf, 1.0), "targets hold NaN"),
        (lambda: predict.kernel_ridge(SMALL[0], Y[:5], 1.0), "kernel of 5 rows, or of 15"),
        (lambda: predict.kernel_ridge(SMALL[0], np.full(N, -1), 1.0), "labels run from -1"),
        (lambda: predict.kernel_ridge(FULL[0], np.full(N, 3), 1.0), "there are 3 outputs"),
        (lambda: predict.kernel_ridge(SMALL[0], ["a"] * N, 1.0), "numbers or labels"),
        (lambda: predict.kernel_ridge(SMALL[0], None, 1.0), "targets must be an array"),
        (lambda: predict.kernel_ridge(SMALL[0], Y * 1j, 1.0), "real numbers"),
        (lambda: predict.kernel_ridge(SMALL[0], Y, -1.0), "not negative"),
        (lambda: predict.kernel_ridge(SMALL[0], Y, "best"), "'loo' or a number"),
        (lambda: predict.kernel_ridge(-SMALL[0], Y, 0.1), "not positive definite"),
        (lambda: predict.kernel_ridge(0 * SMALL[0], Y), "kernel is zero"),
        (lambda: predict.kernel_ridge(SMALL[0], Y, 1.0).predict(SMALL[1].T), "has shape"),
        (lambda: predict.kernel_ridge(FULL[0], Y, 1.0).predict(FULL[1][:4]), "has shape"),
        (lambda: predict.kernel_ridge(SMALL[0], Y, 1.0).variance(SMALL[1], np.ones(3)), "the diagonal has shape"),
        (lambda: predict.kernel_ridge(SMALL[0], Y, 1.0).covariance(SMALL[1], SMALL[0]), "as many rows as cross"),
        (lambda: predict.kernel_ridge(SMALL[0], Y, 1.0).solve(Y[:3]), "values of shape"),
        (lambda: predict.gradient_flow(SMALL[0], Y, START[:3]), "values of shape"),
        (lambda: predict.gradient_flow(SMALL[0], Y).outputs(-1.0), "time="),
        (lambda: predict.gradient_flow(SMALL[0], Y).outputs("end"), "time="),
        (lambda: predict.gradient_flow(SMALL[0], Y).predict(SMALL[1], 1.0, START), "values of shape"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()


def test_arrays_of_another_namespace_are_refused():
    strict = asarray("array_api_strict", Y)
    with pytest.raises(ntkest.NTKError, match="convert one of them"):
        predict.kernel_ridge(SMALL[0], strict, 1.0)
