"""Exact kernels of jax functions, against products of their explicit Jacobians; jitted, and differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkest
from tests.jax.cases import draw, linearize
from tests.jax.test_jax_examples import CASES, mlp


def explicit(J):
    """J (N·O, P) in float64, example by example, and O."""
    axis, count = J.examples
    order = np.moveaxis(np.arange(J.outputs.size).reshape(J.outputs.shape), axis, 0).ravel()
    rows = J.vjp(jnp.eye(J.outputs.size, dtype=J.outputs.dtype))
    return np.concatenate([np.asarray(row, np.float64) for row in rows], axis=1)[order], J.outputs.size // count


@pytest.mark.parametrize("name", CASES)
def test_kernels_of_every_case(name):
    function, shapes, shape, _, _ = CASES[name]
    params = {key: draw(index, *size, scale=0.4) for index, (key, size) in enumerate(shapes.items())}
    J = linearize(function, params, draw(9, *shape))
    A, size = explicit(J)
    wanted = A @ A.T
    peak = np.abs(wanted).max()
    np.testing.assert_allclose(ntkest.ntk(J), wanted, rtol=0, atol=1e-5 * peak)
    blocks = wanted.reshape(-1, size, len(wanted) // size, size)
    total = blocks.sum(axis=(1, 3)) / size
    np.testing.assert_allclose(ntkest.pntk(J), total, rtol=0, atol=1e-5 * size * peak)
    np.testing.assert_allclose(
        ntkest.ntk(J, outputs="trace"), np.trace(blocks, axis1=1, axis2=3) / size, rtol=0, atol=1e-5 * peak
    )


def test_the_kernel_of_an_mlp_in_float64_is_exact_in_jit_and_has_gradients(float64):
    params, x = {"a": draw(0, 6, 9), "b": draw(1, 9), "c": draw(2, 3, 9)}, draw(3, 5, 6)
    weights = draw(4, 5, 5)

    def value(params, x):
        return jnp.sum(weights * ntkest.pntk(ntkest.linearize(mlp, params, x, batch_axis=0)))

    A, size = explicit(ntkest.linearize(mlp, params, x))
    blocks = (A @ A.T).reshape(5, size, 5, size)
    np.testing.assert_allclose(value(params, x), np.sum(weights * blocks.sum(axis=(1, 3))) / size, rtol=1e-10)
    np.testing.assert_allclose(jax.jit(value)(params, x), value(params, x), rtol=1e-12)
    slope = jax.grad(value)(params, x)
    direction = {key: draw(7, *p.shape) for key, p in params.items()}
    moved = [{key: p + sign * 1e-6 * direction[key] for key, p in params.items()} for sign in (1, -1)]
    difference = (value(moved[0], x) - value(moved[1], x)) / 2e-6
    np.testing.assert_allclose(sum(jnp.sum(slope[k] * direction[k]) for k in slope), difference, rtol=1e-6)
