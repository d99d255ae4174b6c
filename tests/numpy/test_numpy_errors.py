"""What the NumPy adapter cannot do ends in its own clear error, never in a wrong number."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.extend import defvjp, primitive

import ntkest
from ntkest.linearization import (
    DeviceMismatchError,
    InconsistentDerivativesError,
    InteractingExamplesError,
    InvalidTypeError,
    InvalidValueError,
    NonDifferentiableError,
    NonFiniteError,
    NotRepeatableError,
    ShapeError,
    TracedValueError,
    UnsupportedModeError,
)
from tests.numpy.numpy_cases import draw

W, X = draw(3, 2), draw(5, 3)


@primitive
def ruleless(x):
    return np.tanh(x)


@primitive
def cubed(x):
    return x**3


@primitive
def _opaque(g, x):
    return 3 * g * x**2


defvjp(cubed, lambda ans, x: lambda g: _opaque(g, x))  # no forward rule, and a VJP that cannot be differentiated


@primitive
def doubled(x):
    return 2 * x


defvjp(doubled, lambda ans, x: lambda g: 2 * g)
autograd.extend.defjvp(doubled, lambda g, ans, x: 3 * g)

noise = np.random.default_rng(0)
REFUSED = {
    "plain dot": (lambda w, x: np.dot(x, w), (W, X), {}, NonDifferentiableError, "autograd.numpy"),
    "plain einsum, then more": (
        lambda w, x: anp.tanh(np.einsum("ij,jk->ik", x, w)),
        (W, X),
        {},
        NonDifferentiableError,
        "autograd.numpy",
    ),
    "plain concatenate": (lambda w: np.concatenate([w, w]), (W,), {}, NonDifferentiableError, "autograd.numpy"),
    "assignment": (lambda w: _assigned(w), (W,), {}, NonDifferentiableError, "assignment"),
    "float()": (lambda w: anp.array(float(w[0, 0])), (W,), {}, NonDifferentiableError, "autograd.numpy"),
    "constant": (lambda w, x: x, (W, X), {}, NonDifferentiableError, "does not depend on the parameters"),
    "no rule": (lambda w: ruleless(w), (W,), {}, UnsupportedModeError, "ruleless"),
    "wrong rule": (lambda w: doubled(w), (W,), {}, InconsistentDerivativesError, "disagree"),
    "random": (lambda w: w * noise.standard_normal(), (W,), {}, NotRepeatableError, "draw random numbers outside"),
    "infinite output": (lambda w: w * np.inf, (W,), {}, NonFiniteError, "outputs"),
    "infinite parameter": (lambda w: w, (W * np.nan,), {}, NonFiniteError, "parameter 'params'"),
    "infinite derivative": (lambda w: anp.sqrt(w), (np.zeros(2),), {}, NonFiniteError, "derivative"),
    "integer parameters": (lambda w: w, (np.arange(3),), {}, InvalidValueError, "no parameters"),
    "no parameters": (lambda p, x: x, ({}, X), {"backend": "numpy"}, InvalidValueError, "no parameters"),
    "complex parameters": (lambda w: w, (W + 1j,), {}, NonDifferentiableError, "complex128"),
    "complex output": (lambda w: w * 1j, (W,), {}, NonDifferentiableError, "complex128"),
    "integer output": (lambda w: anp.round(w).astype(int), (W,), {}, NonDifferentiableError, "int"),
    "text output": (lambda w: "w", (W,), {}, InvalidTypeError, "str"),
    "nothing returned": (lambda w: None, (W,), {}, NonDifferentiableError, "no array"),
    "empty output": (lambda w: w[:0], (W,), {}, InvalidValueError, "no entries"),
    "matrix": (lambda w: w, (np.ma.masked_array(W),), {}, InvalidTypeError, "MaskedArray"),
    "no params": (lambda: W, (), {"backend": "numpy"}, InvalidTypeError, "needs the parameters"),
    "differentiable": (lambda w: w, (W,), {"differentiable": True}, InvalidValueError, "torch adapter"),
    "wrong name": (lambda p: p["a"], ({"a": W},), {"params": "b"}, InvalidValueError, "matches no parameter"),
    "wrong key": (lambda w: {"a": w}, (W,), {"output": "b"}, InvalidValueError, "'a'"),
    "interacting": (
        lambda w, x: anp.dot(x - anp.mean(x, axis=0), w),
        (W, X),
        {"batch_axis": 0},
        InteractingExamplesError,
        "not independent",
    ),
}


def _assigned(w):
    out = np.zeros(w.shape)
    out[0] = w[0]
    return out


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_refused_when_linearized(name):
    function, args, options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ntkest.linearize(function, *args, **options)


def test_a_wrong_rule_passes_only_unchecked():
    J = ntkest.linearize(lambda w: doubled(w), W, check=False)
    np.testing.assert_array_equal(J.vjp(np.ones((1, 6)))[0], np.full((1, 6), 2.0))
    assert J.exponent == 0


def test_without_forward_rule_and_differentiable_vjp_only_the_vjp_is_left():
    J = ntkest.linearize(lambda w: cubed(w), W)
    assert J.modes == {"vjp"}
    np.testing.assert_allclose(J.vjp(np.ones((1, 6)))[0], 3 * W.reshape(1, -1) ** 2)
    with pytest.raises(UnsupportedModeError, match=r"JVP of cubed .* double VJP: VJP of _opaque"):
        J.jvp((np.ones((1, 6)),))


def test_linearize_inside_autograd_is_refused():
    with pytest.raises(TracedValueError, match="outside of grad"):
        autograd.grad(lambda w: ntkest.linearize(lambda p: p, w).outputs[0])(draw(3))


@pytest.mark.parametrize(
    ("probe", "error"),
    [
        (np.ones((2, 9)), ShapeError),
        ((np.ones((2, 9)), np.ones((2, 2))), ValueError),
        ((np.ones((2, 6)), np.ones((3, 2))), ShapeError),
        ((np.ones(6), np.ones(2)), ValueError),
        ((np.ones((2, 6)).tolist(), np.ones((2, 2))), DeviceMismatchError),
    ],
)
def test_misfit_tangents_are_refused(probe, error):
    J = ntkest.linearize(lambda p, x: anp.dot(x, p[0]) + p[1], (W, draw(2)), X)
    with pytest.raises(error) as caught:
        J.jvp(probe)
    assert isinstance(caught.value, ntkest.NTKError)


@pytest.mark.parametrize("probe", [np.ones((2, 9)), np.ones(10), np.ones((1, 5, 2)), [[1.0] * 10]])
def test_misfit_cotangents_are_refused(probe):
    J = ntkest.linearize(lambda p, x: anp.dot(x, p[0]) + p[1], (W, draw(2)), X)
    with pytest.raises(ntkest.NTKError):
        J.vjp(probe)
