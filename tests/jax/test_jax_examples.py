"""Gradients of single examples in jax: loops, convolutions, factors, and inside transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ntkest
from ntkest.linearization import identity, unfactored
from tests.jax.cases import draw, linearize

METHOD = "reverse-by-example"


def mlp(p, x):
    return jnp.tanh(jnp.tanh(x @ p["a"] + p["b"]) @ p["c"].T)


def rnn(p, x):
    def step(h, u):
        h = jnp.tanh(h @ p["w"] + u @ p["u"])
        return h, h

    return lax.scan(step, jnp.zeros((x.shape[1], 4)), x)[1]


def conv(p, x):
    return lax.conv(jax.nn.relu(lax.conv(x, p["a"], (1, 1), "SAME")), p["b"], (2, 2), "VALID").reshape(x.shape[0], -1)


def positions(p, x):
    return jnp.tanh(x @ p["a"]).mean(1) @ p["b"]


CASES = {
    # function, shapes of parameters, of the input, axis of examples, parameters in factors
    "dense": (mlp, {"a": (20, 30), "b": (30,), "c": (9, 30)}, (5, 20), 0, {"a", "c"}),
    "trajectories": (rnn, {"w": (4, 4), "u": (3, 4)}, (6, 5, 3), 1, set()),
    "convolution": (conv, {"a": (2, 1, 3, 3), "b": (3, 2, 3, 3)}, (4, 1, 7, 7), 0, set()),
    "positions": (positions, {"a": (20, 30), "b": (30, 9)}, (5, 3, 20), 0, {"a", "b"}),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_cotangents_on_one_example(name):
    function, shapes, shape, axis, factored = CASES[name]
    params = {key: draw(index, *size, scale=0.4) for index, (key, size) in enumerate(shapes.items())}
    J = linearize(function, params, draw(9, *shape))
    assert J.examples is not None
    assert J.examples[0] == axis
    omega = draw(10, 3, J.outputs.size)
    for chunk in (None, 1, 3, 4):
        images = J.map_example_vjp(identity, omega, chunk=chunk)
        assert {n for n, image in zip(J.param_names, images, strict=True) if isinstance(image, tuple)} == factored
        for n in range(J.examples[1]):
            mask = np.zeros(J.outputs.shape, np.float32)
            mask[(slice(None),) * axis + (n,)] = 1
            for image, wanted in zip(images, J.vjp(omega * mask.reshape(-1)), strict=True):
                np.testing.assert_allclose(unfactored(jnp, image)[:, n], wanted, rtol=1e-4, atol=1e-4)


def test_a_weight_with_another_use_is_not_in_factors():
    J = linearize(lambda p, x: x @ p + jnp.sum(p**2), draw(0, 20, 30), draw(1, 5, 20))
    (image,) = J.map_example_vjp(identity, draw(2, 3, 150))
    assert not isinstance(image, tuple)


@pytest.mark.parametrize("quantity", [ntkest.trace, ntkest.effective_rank])
def test_a_fixed_cost_runs_under_jit_and_has_gradients(quantity, float64):
    params, x = {"a": draw(0, 6, 9), "b": draw(1, 9), "c": draw(2, 3, 9)}, draw(3, 5, 6)

    def value(params, x):
        J = ntkest.linearize(mlp, params, x, batch_axis=0)
        return quantity(J, method=METHOD, passes=6).value

    plain = quantity(ntkest.linearize(mlp, params, x), method=METHOD, passes=6)
    np.testing.assert_allclose(jax.jit(value)(params, x), float(plain), rtol=1e-12)
    slope = jax.jit(jax.grad(value))(params, x)
    direction = {key: draw(7, *p.shape) for key, p in params.items()}
    moved = [{key: p + sign * 1e-6 * direction[key] for key, p in params.items()} for sign in (1, -1)]
    difference = (value(moved[0], x) - value(moved[1], x)) / 2e-6
    np.testing.assert_allclose(sum(jnp.sum(slope[k] * direction[k]) for k in slope), difference, rtol=1e-6)


def test_new_data_and_parameters_compile_nothing_again(compilations):
    counts = []
    for seed in range(4):
        params = {"a": draw(seed, 6, 9), "b": draw(seed + 1, 9), "c": draw(seed + 2, 3, 9)}
        compilations()
        ntkest.frobenius_norm(
            ntkest.linearize(lambda p, x: mlp(p, x), params, draw(seed, 5, 6)), method=METHOD, passes=6
        )
        counts.append(compilations())
    assert counts[0] > 0
    assert counts[1:] == [0, 0, 0]


def test_a_function_that_looks_at_its_inputs_has_no_gradients_of_examples_and_auto_goes_without():
    def f(p, x):
        return x @ p if float(np.sum(np.asarray(x) ** 2)) > -1 else p[0]

    J = linearize(f, draw(0, 4, 3), np.asarray(draw(1, 50, 4)))
    assert J.examples == (0, 50)
    assert getattr(J, "map_example_vjp", None) is None
    assert ntkest.trace(J).method != METHOD
    with pytest.raises(ntkest.NTKError, match="map_example_vjp"):
        ntkest.trace(J, method=METHOD, passes=9)
