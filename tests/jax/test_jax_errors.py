"""Every bad input gets an error of its own that names the trouble."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ntkest.linearization import (
    DeviceMismatchError,
    InconsistentDerivativesError,
    InteractingExamplesError,
    InvalidTypeError,
    InvalidValueError,
    NonDifferentiableError,
    NonFiniteError,
    NotRepeatableError,
    NTKError,
    ShapeError,
    UnsupportedModeError,
)
from tests.jax.cases import BY_NAME, draw, linearize, signs


def f(params, x):
    return jnp.tanh(x @ params["w"])


@jax.custom_jvp
def wrong_slope(x):
    return jnp.sin(x)


def wrong_rule(primals, tangents):
    (x,), (t,) = primals, tangents
    return jnp.sin(x), lax.custom_linear_solve(lambda v: v, t, lambda _, b: b, lambda _, b: 3.0 * b)


wrong_slope.defjvp(wrong_rule)


def params():
    return {"w": draw(0, 3, 2)}


def x():
    return draw(1, 4, 3)


def good():
    return linearize(f, params(), x())


BAD = {
    "no parameters": (InvalidValueError, "no parameters", lambda: linearize(lambda p, x: x, {"n": 3}, x())),
    "nothing given": (InvalidTypeError, "got no parameters", lambda: linearize(f)),
    "integer outputs": (
        NonDifferentiableError,
        "output is int32",
        lambda: linearize(lambda p, x: f(p, x).argmax(1), params(), x()),
    ),
    "one output of several is of integers": (
        NonDifferentiableError,
        "'label' is int32",
        lambda: linearize(lambda p, x: {"label": f(p, x).argmax(1), "y": f(p, x)}, params(), x()),
    ),
    "complex outputs": (
        NonDifferentiableError,
        "complex64",
        lambda: linearize(lambda p, x: f(p, x) + 1j, params(), x()),
    ),
    "complex parameters": (
        NonDifferentiableError,
        "parameter 'w' is complex64",
        lambda: linearize(lambda p, x: f(p, x).real, {"w": draw(0, 3, 2) + 1j}, x()),
    ),
    "non-finite parameters": (
        NonFiniteError,
        "parameter 'w'",
        lambda: linearize(f, {"w": draw(0, 3, 2).at[0, 0].set(jnp.nan)}, x()),
    ),
    "non-finite outputs": (NonFiniteError, "4 of 8 outputs", lambda: linearize(f, params(), x().at[:2].set(jnp.nan))),
    "non-finite derivatives": (NonFiniteError, "derivative", lambda: linearize(lambda p: jnp.sqrt(p), jnp.zeros(3))),
    "no outputs": (InvalidValueError, "no entries", lambda: linearize(f, params(), jnp.zeros((0, 3)))),
    "not an array": (InvalidTypeError, "str", lambda: linearize(lambda p, x: "y", params(), x())),
    "hidden randomness": (
        NotRepeatableError,
        "pure",
        lambda: linearize(lambda p, x: f(p, x) * random.random(), params(), x()),
    ),
    "a wrong rule": (InconsistentDerivativesError, "disagree", lambda: linearize(wrong_slope, draw(0, 5))),
    "interacting examples": (
        InteractingExamplesError,
        "batch_axis=0",
        lambda: linearize(lambda p, x: f(p, x - x.mean(0)), params(), x(), batch_axis=0),
    ),
    "no such axis": (InvalidValueError, "batch_axis=5", lambda: linearize(f, params(), x(), batch_axis=5)),
    "no such parameter": (InvalidValueError, "did you mean", lambda: linearize(f, params(), x(), params="ww")),
    "no such output": (InvalidTypeError, "output='y'|output=", lambda: linearize(f, params(), x(), output=1.5)),
    "cotangents of a wrong shape": (
        ShapeError,
        r"\(k, 8\), got \(2, 7\)",
        lambda: good().vjp(jnp.ones((2, 7))),
    ),
    "a single cotangent": (NTKError, r"\(k, 8\)", lambda: good().vjp(jnp.ones(8))),
    "tangents of a wrong shape": (
        ShapeError,
        r"\(k, 6\)",
        lambda: good().jvp((jnp.ones((2, 3, 2)),)),
    ),
    "too many tangents": (
        ShapeError,
        "2 blocks of tangents for 1",
        lambda: good().jvp((jnp.ones((2, 6)), jnp.ones((2, 6)))),
    ),
    "no probes": (InvalidValueError, "at least one probe", lambda: good().vjp(jnp.ones((0, 8)))),
    "probes of another framework": (
        DeviceMismatchError,
        "not builtins.float",
        lambda: good().vjp([1.0] * 8),
    ),
    "a bad chunk": (InvalidValueError, "chunk=", lambda: good().map_vjp(sum, signs(0, 2, 8), chunk=0)),
    "other shapes in at": (ShapeError, r"float32\[3, 5\]", lambda: good().at({"w": draw(0, 3, 5)})),
    "no reverse mode": (
        UnsupportedModeError,
        "while",
        lambda: BY_NAME["while"].build().linearize().vjp(jnp.ones((1, 6))),
    ),
    "no mode at all": (
        UnsupportedModeError,
        "callback",
        lambda: linearize(lambda p: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((3,), p.dtype), p), draw(0, 3)),
    ),
    "an unknown mode": (UnsupportedModeError, "'hvp'", lambda: good().chunk_size("hvp", 3)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_its_own_error(name):
    kind, words, call = BAD[name]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert isinstance(caught.value, NTKError)
