"""Bases of sketches that are never made, against orthonormal ones."""

import array_api_compat.numpy as xp
import numpy as np
import pytest

import ntkest
from ntkest.estimators import spans
from ntkest.estimators.problem import Counted, Problem
from ntkest.estimators.spans import extend_span
from ntkest.tangents import group_parameters

P = 60
J = ntkest.from_jacobian(np.random.default_rng(0).standard_normal((40, P)))
PROBLEM = Problem.of((Counted(J),), groups=group_parameters(J.param_names, None), needs=frozenset())
DRAW = np.random.default_rng(1)
FAR = DRAW.standard_normal((7, P))
NEAR = np.concatenate([FAR[:2] + 1e-9 * DRAW.standard_normal((2, P)), DRAW.standard_normal((1, P))])


def grown(*batches):
    span = r = None
    for batch in batches:
        span, r, _ = extend_span(PROBLEM, span, r, (batch,))
    return span, r


def check(span, r, images):
    (q,) = span.orthonormal(xp)
    np.testing.assert_allclose(q @ q.T, np.eye(len(images)), atol=1e-11)
    np.testing.assert_allclose(r.T @ q, images, atol=1e-11)
    np.testing.assert_allclose(r, np.triu(r), atol=1e-13)


@pytest.mark.parametrize("cut", [None, 1, 5])
def test_images_far_from_dependent_stay_as_they_are(cut):
    span, r = grown(FAR) if cut is None else grown(FAR[:cut], FAR[cut:])
    assert span.lower is not None
    np.testing.assert_array_equal(span.rows[0], FAR)
    check(span, r, FAR)


def test_images_close_to_dependent_are_made_orthonormal_with_those_before():
    for batches in ((NEAR[:1], NEAR[1:], NEAR[1:] * 0 + FAR[5:]), (FAR, NEAR), (np.concatenate([FAR, NEAR]),)):
        span, r = grown(*batches)
        check(span, r, np.concatenate(batches))
    assert span.lower is None


def test_zero_images_are_dependent():
    span, r = grown(FAR, np.zeros((2, P)))
    assert span.lower is None
    np.testing.assert_allclose(r[:, 7:], 0.0, atol=1e-13)


@pytest.mark.parametrize("cut", [0, 3])
def test_images_turned_are_those_of_orthonormal_vectors(cut):
    matrix = DRAW.standard_normal((P, 9))
    span, _ = grown(FAR)
    (q,) = span.orthonormal(xp)
    old = (q[:cut] @ matrix,) if cut else None
    (turned,) = span.turned(PROBLEM, old, (FAR[cut:] @ matrix,))
    np.testing.assert_allclose(turned, q[cut:] @ matrix, atol=1e-12)


def test_images_made_before_are_those_of_the_basis_that_is_made_at_last():
    matrix = DRAW.standard_normal((P, 9))
    before, r = grown(FAR)
    (old,) = before.orthonormal(xp)
    span, r, turn = extend_span(PROBLEM, before, r, (NEAR,))
    np.testing.assert_allclose(turn @ (old @ matrix), span.rows[0][:7] @ matrix, atol=1e-12)
    assert extend_span(PROBLEM, span, r, (NEAR,))[2] is None


@pytest.mark.parametrize("quantity", ["trace", "frobenius_norm"])
@pytest.mark.parametrize("seed", range(8))
def test_the_range_of_a_kernel_of_low_rank_is_found_to_rounding_in_whatever_steps(quantity, seed):
    A = np.random.default_rng(seed).standard_normal((70, 5)) @ np.random.default_rng(9).standard_normal((5, 90))
    moments = {"trace": np.sum(A * A), "frobenius_norm": np.linalg.norm(A @ A.T)}
    J, state = ntkest.from_jacobian(A), True
    for passes in (8, 10, 14, 24):  # 4 samples, 5, and more than there are dimensions
        found = getattr(ntkest, quantity)(J, method="xnystrace", passes=passes, seed=seed, state=state)
        state = found.state
    assert float(found) == pytest.approx(moments[quantity], rel=3e-14)


@pytest.mark.parametrize("quantity", ["trace", "frobenius_norm"])
@pytest.mark.parametrize("decay", [0.0, 0.5, 3.0])
def test_estimates_are_the_same_with_either_basis(quantity, decay, monkeypatch):
    A = np.random.default_rng(2).standard_normal((50, 90)) / np.arange(1, 91) ** decay
    estimate = getattr(ntkest, quantity)
    runs = []
    for digits in (spans.DIGITS, 0.0):  # with 0 none is far enough from dependent
        monkeypatch.setattr(spans, "DIGITS", digits)
        runs.append(estimate(ntkest.from_jacobian(A), method="xnystrace", passes=40))
    assert float(runs[0]) == pytest.approx(float(runs[1]), rel=1e-10)
    assert float(runs[0].std_error) == pytest.approx(float(runs[1].std_error), rel=1e-7)
