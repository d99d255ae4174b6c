"""Exact kernels of jax functions, layer by layer, against products of Jacobians by `jax.jacrev`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkest
from tests.jax.cases import draw, equinox, linearize, linen, nnx
from tests.jax.kernel_cases import CASES


def jacobian(function, params, x):
    """J of each parameter, (N, O, P_l) in float64."""
    rows = jax.jit(jax.jacrev(lambda p: function(p, x).reshape(len(x), -1)))(params)
    return {name: np.asarray(a, np.float64).reshape(*a.shape[:2], -1) for name, a in sorted(rows.items())}


def blocks(left, right):
    """(N, N', O, O) over all parameters."""
    return sum(np.einsum("nop,mqp->nmoq", left[name], right[name]) for name in left)


def reductions(K):
    n, m, size, _ = K.shape
    return {
        "full": K.transpose(0, 2, 1, 3).reshape(n * size, m * size),
        "trace": np.trace(K, axis1=2, axis2=3) / size,
        "sum": K.sum(axis=(2, 3)),
        "pntk": K.sum(axis=(2, 3)) / size,
    }


def kernels(J, other=None, which=("full", "trace", "sum", "pntk")):
    return {o: ntkest.pntk(J, other) if o == "pntk" else ntkest.ntk(J, other, o) for o in which}


def assert_same(found, wanted, rtol):
    """To a tolerance relative to the largest entry of each."""
    for name, matrix in found.items():
        kernel = wanted[name]
        np.testing.assert_allclose(matrix, kernel, rtol=0, atol=rtol * np.abs(kernel).max(), err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_in_double_precision_under_jit_every_layer_is_exact(name, float64):
    (function, params, x), _ = CASES[name]()
    which = ("full", "trace", "sum")
    found = jax.jit(lambda p, x: kernels(linearize(function, p, x, batch_axis=0), which=which))(params, x)
    A = jacobian(function, params, x)
    assert_same(found, reductions(blocks(A, A)), 1e-10)


@pytest.mark.parametrize("name", CASES)
def test_in_single_precision_every_layer_is_exact_to_rounding_and_in_factors_where_they_are_smaller(name):
    (function, params, x), factored = CASES[name]()
    J = linearize(function, params, x)
    assert J.examples == (0, len(x))
    if factored is not None:
        images = J.uses(draw(0, J.outputs.size // len(x), J.outputs.size), 0, len(x))
        pairs = zip(J.param_names, images, strict=True)
        assert "".join(n[-1] for n, image in pairs if isinstance(image, tuple)) == factored
    found = kernels(J, which=("full", "pntk"))
    assert all(kernel.dtype == jnp.float32 for kernel in found.values())
    A = jacobian(function, params, x)
    assert_same(found, reductions(blocks(A, A)), 1e-5)


@pytest.mark.parametrize("make", [linen, nnx, lambda: equinox(True)], ids=["linen", "nnx", "equinox"])
def test_modules_are_exact(make, float64):
    case = make()
    J = case.linearize()
    assert any(isinstance(image, tuple) for image in J.uses(draw(0, 1, J.outputs.size), 0, J.examples[1]))
    A = np.concatenate([case.jacobian()[name] for name in J.param_names], axis=1)
    A = A.reshape(J.examples[1], -1, A.shape[1])
    assert_same(kernels(J, which=("full",)), reductions(np.einsum("nop,mqp->nmoq", A, A)), 1e-10)


@pytest.mark.parametrize("name", ["tied", "2d", "embedding", "gru"])
def test_two_sets_of_examples_and_layers_that_sum_to_the_whole(name, float64):
    (function, params, x), _ = CASES[name]()
    y = x[:2][::-1]
    J, other = (linearize(function, params, inputs) for inputs in (x, y))
    A, B = (jacobian(function, params, inputs) for inputs in (x, y))
    assert_same(kernels(J, other, ("full", "sum")), reductions(blocks(A, B)), 1e-10)
    parts = ntkest.ntk(J, by="parameter")
    for parameter, kernel in parts.items():
        alone = reductions(blocks({parameter: A[parameter]}, {parameter: A[parameter]}))["full"]
        np.testing.assert_allclose(kernel, alone, rtol=0, atol=1e-10 * np.abs(alone).max())
    whole, total = ntkest.pntk(J, other), sum(ntkest.pntk(J, other, by="layer").values())
    np.testing.assert_allclose(total, whole, rtol=0, atol=1e-12 * np.abs(whole).max())


@pytest.mark.parametrize("name", ["dense", "2d", "tied", "gru", "embedding"])
def test_kernels_have_gradients(name, float64):
    (function, params, x), _ = CASES[name]()
    weights = draw(11, len(x), len(x))

    @jax.jit
    def value(params):
        return jnp.sum(weights * ntkest.pntk(linearize(function, params, x, batch_axis=0)))

    slope = jax.jit(jax.grad(value))(params)
    direction = {key: draw(12, *p.shape) for key, p in params.items()}
    moved = [{key: p + sign * 1e-6 * direction[key] for key, p in params.items()} for sign in (1, -1)]
    difference = (value(moved[0]) - value(moved[1])) / 2e-6
    np.testing.assert_allclose(sum(jnp.sum(slope[k] * direction[k]) for k in slope), difference, rtol=1e-6)


@pytest.mark.parametrize("name", ["dense", "2d", "gru", "embedding"])
def test_new_data_parameters_and_functions_compile_nothing_again(name, compilations):
    counts = []
    for number in range(3):
        (function, params, x), _ = CASES[name]()
        params = {key: (1 + 0.1 * number) * p for key, p in params.items()}
        x = x[::-1] if number else x
        x.block_until_ready()
        compilations()
        J = linearize(lambda p, x: function(p, x), params, x)  # noqa: B023 - called at once
        jax.block_until_ready(kernels(J))
        counts.append(compilations())
    assert counts[0] > 0
    assert counts[1:] == [0, 0]


def test_a_dense_layer_costs_the_same_whichever_way_round_its_weight_is():
    """By the numbers that come out: of both weights only inputs and cotangents."""
    x, w = draw(0, 5, 40), draw(1, 40, 50)
    ways = (lambda p, x: jnp.tanh(x @ p), w), (lambda p, x: jnp.tanh(x @ p.T), w.T)
    sizes = [linearize(function, weight, x).example_size for function, weight in ways]
    assert sizes == [90, 90]
