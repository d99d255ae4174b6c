"""Comparing kernels, and the check of the readout, against the same by explicit Kronecker products."""

import json
import math

import numpy as np
import pytest

import ntkest
from tests.arrays import NAMESPACES, accuracy, asarray

N, O, P = 9, 3, 70  # noqa: E741 - the number of outputs of an example
DRAW = np.random.default_rng(0)
A = DRAW.standard_normal((N * O, P))
K = A @ A.T
J = ntkest.from_jacobian(A, (N, O))
SMALL = np.asarray(ntkest.pntk(J))
STAND_IN = np.kron(SMALL, np.eye(O))
Y = DRAW.standard_normal((N, O))


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("given", ["small", "product"])
def test_a_small_kernel_stands_for_its_product_with_the_identity(namespace, given):
    first, second = (asarray(namespace, k) for k in (SMALL if given == "small" else STAND_IN, K))
    found = ntkest.compare(first, second)
    rtol = 100 * accuracy(first)
    assert found.frobenius_error == pytest.approx(np.linalg.norm(STAND_IN - K) / np.linalg.norm(K), rel=rtol)
    spectra = [np.linalg.eigvalsh(k)[::-1] for k in (STAND_IN, K)]
    for mine, wanted in zip(found.spectra, spectra, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=rtol)
    assert found.largest_ratio == pytest.approx(spectra[0][0] / spectra[1][0], rel=rtol)
    conditions = [values[0] / values[-1] for values in spectra]
    assert found.condition_numbers == pytest.approx(conditions, rel=rtol)
    assert found.condition_ratio == pytest.approx(conditions[0] / conditions[1], rel=rtol)


def test_the_reference_may_be_the_small_one():
    found = ntkest.compare(K, SMALL)
    assert found.frobenius_error == pytest.approx(np.linalg.norm(STAND_IN - K) / np.linalg.norm(STAND_IN))


@pytest.mark.parametrize("train", [6, [0, 2, 3, 5, 7, 8], np.array([8, 7, 5, 3, 2, 0])], ids=["first", "list", "array"])
def test_predictions_for_the_rest_of_a_split(train):
    found = ntkest.compare(SMALL, K, Y, train=train, ridge=2.0)
    inside = np.arange(6) if isinstance(train, int) else np.sort(train)
    outside = np.setdiff1d(np.arange(N), inside)
    here, there = ((i[:, None] * O + np.arange(O)).ravel() for i in (inside, outside))
    predictions = []
    for kernel in (STAND_IN, K):
        solved = np.linalg.solve(kernel[np.ix_(here, here)] + 2 * np.eye(len(here)), Y.ravel()[here])
        predictions.append((kernel[np.ix_(there, here)] @ solved).reshape(-1, O))
    first, second = predictions
    assert found.prediction_difference == pytest.approx(np.linalg.norm(first - second) / np.linalg.norm(second))
    assert found.agreement == np.mean(first.argmax(1) == second.argmax(1))
    assert found.ridges == (2.0, 2.0)


def test_without_a_split_examples_are_left_out():
    found = ntkest.compare(SMALL, K, Y, ridge=2.0)
    fits = [ntkest.predict.kernel_ridge(kernel, Y, 2.0).left_out().predictions for kernel in (SMALL, K)]
    wanted = np.linalg.norm(fits[0] - fits[1]) / np.linalg.norm(fits[1])
    assert found.prediction_difference == pytest.approx(wanted)
    own = ntkest.compare(SMALL, K, Y)
    assert own.ridges == tuple(ntkest.predict.kernel_ridge(kernel, Y).ridge for kernel in (SMALL, K))


def test_a_kernel_is_like_itself():
    found = ntkest.compare(K, K, np.arange(N) % O)
    assert found.frobenius_error == found.prediction_difference == 0
    assert found.largest_ratio == found.condition_ratio == found.agreement == 1


def test_singular_kernels_have_no_condition_number():
    low = A[:, :4] @ A[:, :4].T
    assert ntkest.compare(low, K).condition_ratio == math.inf
    both = ntkest.compare(low, 2 * low)
    assert both.condition_numbers == (math.inf, math.inf)
    assert math.isnan(both.condition_ratio)
    document = json.loads(json.dumps(both.to_dict(), allow_nan=False))
    assert document["condition_numbers"] == [None, None]
    assert document["frobenius_error"] == pytest.approx(0.5)


def test_it_prints_as_a_table():
    text = str(ntkest.compare(SMALL, K, Y))
    assert [line.split("  ")[0] for line in text.splitlines()] == [
        "relative Frobenius error",
        "ratio of largest eigenvalues",
        "ratio of condition numbers",
        "relative difference of predictions",
        "agreement of predicted classes",
    ]


def gradients_of_outputs(readout, width, seed=0):
    """Rows (N·O, width·d) of a layer below a linear readout: products of readout rows with independent gradients."""
    inner = np.random.default_rng(seed).standard_normal((N, width, 5))
    return np.einsum("oh,nhd->nohd", readout, inner).reshape(N * len(readout), -1)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_readout_check_is_what_the_explicit_kernels_say(namespace):
    found = ntkest.readout_check(asarray(namespace, K), O)
    blocks = K.reshape(N, O, N, O)
    trace = np.kron(np.einsum("nomo->nm", blocks) / O, np.eye(O))
    rel = 100 * accuracy(asarray(namespace, K))
    assert found.sum_error == pytest.approx(np.linalg.norm(STAND_IN - K) / np.linalg.norm(K), rel=rel)
    assert found.trace_error == pytest.approx(np.linalg.norm(trace - K) / np.linalg.norm(K), rel=rel)
    assert found.inflation == pytest.approx(np.trace(STAND_IN) / np.trace(K), rel=rel)
    own = np.einsum("nonp->op", blocks)
    off = (own.sum() - np.trace(own)) / (O * (O - 1))
    assert found.correlation == pytest.approx(off / (np.trace(own) / O), rel=10 * rel)
    assert ntkest.readout_check(J).to_dict() == pytest.approx(ntkest.readout_check(K, O).to_dict())


def test_correlated_readout_rows_are_told_from_independent_ones():
    independent = DRAW.standard_normal((O, 400))
    shared = DRAW.standard_normal((1, 400)) + 0.2 * independent
    good = ntkest.readout_check(ntkest.from_jacobian(gradients_of_outputs(independent, 400), (N, O)))
    bad = ntkest.readout_check(ntkest.from_jacobian(gradients_of_outputs(shared, 400), (N, O)))
    assert good.advice == "sum"
    assert abs(good.correlation) < 0.1
    assert bad.advice == "full"
    assert bad.sum_error > 1
    assert bad.inflation > 0.9 * O
    assert "outputs='full'" in str(bad)


def test_outputs_that_cancel_leave_the_trace_kernel():
    """Rows of a readout that sum to zero, as softmax training makes them: pNTK is zero, and says nothing."""
    readout = DRAW.standard_normal((8, 500))
    rows = gradients_of_outputs(readout - readout.mean(axis=0), 500)
    found = ntkest.readout_check(ntkest.from_jacobian(rows, (N, 8)))
    assert found.inflation == pytest.approx(0, abs=1e-12)
    assert found.sum_error == pytest.approx(1)
    assert found.advice == "trace"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ntkest.compare(SMALL, K[:-3, :-3][:, :]), "not of the same examples"),
        (lambda: ntkest.compare(SMALL, 0 * K), "reference kernel is zero"),
        (lambda: ntkest.compare(SMALL.tolist(), K), "a kernel is an array"),
        (lambda: ntkest.compare(SMALL, K, Y[:4]), "targets of shape"),
        (lambda: ntkest.compare(SMALL, K, Y, train=N), "leaves some"),
        (lambda: ntkest.compare(SMALL, K, Y, train=[1, 40]), "leaves some"),
        (lambda: ntkest.compare(SMALL, K, Y, train="half"), "train= takes"),
        (lambda: ntkest.compare(asarray("array_api_strict", SMALL), K), "convert one of them"),
        (lambda: ntkest.readout_check(K), "size= takes"),
        (lambda: ntkest.readout_check(K, 4), "with 4 outputs"),
        (lambda: ntkest.readout_check(0 * K, O), "kernel is zero"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()
