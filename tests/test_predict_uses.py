"""Scores of architectures and the choice of batches, against their definitions."""

import numpy as np
import pytest

import ntkest
from ntkest import predict
from tests.arrays import NAMESPACES, asarray
from tests.networks import mlp

N, RIDGE = 15, 0.3
DRAW = np.random.default_rng(0)
ROWS = DRAW.standard_normal((N, 6)) * np.linspace(0.3, 2, N)[:, None]
K = ROWS @ ROWS.T
KNOWN = [2, 9, 5]
Y = np.eye(3)[[0, 1, 2]] - 1 / 3


def posterior(known, values=None):
    """Covariance and mean by an explicit inverse."""
    inverse = np.linalg.inv(K[np.ix_(known, known)] + RIDGE * np.eye(len(known)))
    mean = None if values is None else K[:, known] @ inverse @ values
    return K - K[:, known] @ inverse @ K[known, :], mean


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("method", ["variance", "mean-variance", "look-ahead"])
def test_each_choice_is_the_best_by_trying_all(namespace, method):
    """Every candidate is added to the labelled ones, and everything is computed anew."""
    known, values, wanted = list(KNOWN), Y, []
    for _ in range(4):
        before, mean = posterior(known, values)
        scores = np.full(N, -np.inf)
        for i in set(range(N)) - set(known):
            label = np.eye(3)[mean[i].argmax()] - 1 / 3
            after, moved = posterior([*known, i], np.vstack([values, label]))
            others = [j for j in range(N) if j not in known and j != i]
            scores[i] = {
                "variance": before[i, i],
                "mean-variance": np.trace((before - after)[np.ix_(others, others)]),
                "look-ahead": np.sum((moved - mean)[others] ** 2),
            }[method]
        wanted.append(int(scores.argmax()))
        values = np.vstack([values, np.eye(3)[mean[wanted[-1]].argmax()] - 1 / 3])
        known.append(wanted[-1])
    targets = {"targets": asarray(namespace, Y)} if method == "look-ahead" else {}
    found = predict.select_batch(asarray(namespace, K), KNOWN, 4, RIDGE, method=method, **targets)
    assert found.tolist() == wanted


def test_labels_are_centred_rows_and_one_output_has_signs():
    as_rows = predict.select_batch(K, KNOWN, 3, RIDGE, method="look-ahead", targets=Y)
    as_labels = predict.select_batch(K, np.array(KNOWN), 3, RIDGE, method="look-ahead", targets=np.arange(3))
    assert as_rows.tolist() == as_labels.tolist()
    signs = np.array([1.0, -1.0, 1.0])
    (first,) = predict.select_batch(K, KNOWN, 1, RIDGE, method="look-ahead", targets=signs)
    before, mean = posterior(KNOWN, signs)
    changes = []
    for i in range(N):
        others = [j for j in range(N) if j not in KNOWN and j != i]
        step = before[others, i] * (np.sign(mean[i]) - mean[i]) / (before[i, i] + RIDGE)
        changes.append(-1 if i in KNOWN else step @ step)
    assert first == np.argmax(changes)


def test_nothing_needs_to_be_labelled_yet():
    found = predict.select_batch(K, [], N, RIDGE)
    assert found[0] == np.diagonal(K).argmax()
    assert sorted(found) == list(range(N))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predict.select_batch(K, KNOWN, 2, RIDGE, method="random"), "method= takes"),
        (lambda: predict.select_batch(K, KNOWN, 0, RIDGE), "count=0"),
        (lambda: predict.select_batch(K, KNOWN, 13, RIDGE), "12 to choose from"),
        (lambda: predict.select_batch(K, KNOWN, 1.0, RIDGE), "count= takes"),
        (lambda: predict.select_batch(K, KNOWN, 2, 0.0), "positive"),
        (lambda: predict.select_batch(K, [1, 1], 2, RIDGE), "different ones"),
        (lambda: predict.select_batch(K, [N], 2, RIDGE), "different ones"),
        (lambda: predict.select_batch(K, [0.5], 2, RIDGE), "by their indices"),
        (lambda: predict.select_batch(K, KNOWN, 2, RIDGE, targets=Y), "targets= are for"),
        (lambda: predict.select_batch(K, KNOWN, 2, RIDGE, method="look-ahead"), "targets= are for"),
        (lambda: predict.select_batch(K, [], 2, RIDGE, method="look-ahead", targets=Y), "some labelled"),
        (lambda: predict.select_batch(K, KNOWN, 2, RIDGE, method="look-ahead", targets=Y[:2]), "3 examples are"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(ntkest.NTKError, match=message):
        call()


def test_scores_are_those_of_the_explicit_kernels(backend):
    J, A = mlp(backend, (4, 30, 3), N=8)
    labels = [0, 1, 2, 0, 1, 2, 0, 1]
    found = predict.architecture_score(J, labels)
    blocks = (A @ A.T).reshape(8, 3, 8, 3)
    small = blocks.sum(axis=(1, 3)) / 3
    values = np.linalg.eigvalsh(small)
    assert found.trace == pytest.approx(np.trace(A @ A.T) / 24, rel=1e-4)
    assert found.condition_number == pytest.approx(values[-1] / values[0], rel=1e-2)
    assert found.left_out.error == pytest.approx(predict.kernel_ridge(small, labels).left_out().error, rel=1e-2)
    assert predict.architecture_score(J).left_out is None


def test_more_examples_than_parameters_have_no_condition_number(backend):
    J, _ = mlp(backend, (1, 2, 2), N=40)
    assert predict.architecture_score(J).condition_number == np.inf
