"""`linearize` called inside jit, grad and vmap: plain traced code, differentiable through to the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jax.cases import BY_NAME, CASES, flat, linearize, signs

SMOOTH = [case for case in CASES if case.id in ("mlp", "convnet", "gru", "checkpoint", "custom-rules")]


def square(images):
    return sum((i * i).sum(1) for i in images)


def test_the_smooth_cases_are_all_in_the_table():
    assert len(SMOOTH) == 5


@pytest.mark.parametrize("case", SMOOTH)
@pytest.mark.usefixtures("float64")
def test_gradients_of_a_squared_image_agree_with_finite_differences(case):
    built = case.build()
    params, *inputs = built.args
    w = signs(0, 3, built.linearize(check=False).outputs.size)

    def norm(p):
        J = linearize(built.target, p, *inputs, **built.kwargs)
        assert J.exponent == 0
        return J.map_vjp(square, w).sum()

    value, slope = jax.jit(jax.value_and_grad(norm))(params)
    J = built.linearize()
    np.testing.assert_allclose(value, J.map_vjp(square, w).sum(), rtol=1e-9)
    direction = jax.tree.map(lambda p: signs(p.size, *p.shape), params)
    step = 1e-5
    ahead, behind = (J.at(jax.tree.map(lambda p, d: p + h * d, params, direction)) for h in (step, -step))  # noqa: B023
    difference = (ahead.map_vjp(square, w).sum() - behind.map_vjp(square, w).sum()) / (2 * step)
    along = sum((flat(slope)[n] * d).sum() for n, d in flat(direction).items())
    np.testing.assert_allclose(along, difference, rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "while", "custom-rules"])
def test_jvps_inside_jit_equal_those_outside(name):
    built = BY_NAME[name].build()
    params, *inputs = built.args
    J = built.linearize()
    v = tuple(signs(i, 3, p.size) for i, p in enumerate(J.params))
    inside = jax.jit(lambda p: linearize(built.target, p, *inputs).jvp(v))(params)
    np.testing.assert_allclose(inside, J.jvp(v), rtol=1e-4, atol=1e-5)


def test_vmap_over_parameters_gives_each_its_own_jacobian():
    built = BY_NAME["mlp"].build()
    params, x = built.args
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    w = signs(0, 2, 21)
    found = jax.vmap(lambda p: linearize(built.target, p, x).map_vjp(square, w))(stacked)
    for i, p in enumerate([params, jax.tree.map(lambda a: 2 * a, params)]):
        np.testing.assert_allclose(found[i], linearize(built.target, p, x).map_vjp(square, w), rtol=1e-4)


def test_tracers_in_inputs_or_closures_are_seen():
    params, x = BY_NAME["mlp"].build().args
    f = BY_NAME["mlp"].build().target
    w = signs(0, 1, 21)

    def by_input(x):
        return linearize(f, params, x).map_vjp(square, w)[0]

    def by_closure(x):
        return linearize(lambda p: f(p, x), params).map_vjp(square, w)[0]

    for function in (by_input, by_closure):
        np.testing.assert_allclose(jax.jit(function)(x), by_input(x), rtol=1e-4)
    np.testing.assert_allclose(jax.grad(by_closure)(x), jax.grad(by_input)(x), rtol=1e-4)
    assert np.abs(jax.grad(by_closure)(x)).max() > 0


def test_everything_may_be_concrete_inside_jit():
    built = BY_NAME["mlp"].build()
    w = signs(0, 2, 21)
    found = jax.jit(lambda s: s * built.linearize().map_vjp(square, w))(1.0)
    np.testing.assert_allclose(found, built.linearize().map_vjp(square, w), rtol=1e-4)


def test_a_linearization_made_outside_takes_traced_probes_and_parameters():
    built = BY_NAME["mlp"].build()
    J, w = built.linearize(), signs(0, 2, 21)
    np.testing.assert_allclose(jax.jit(lambda w: J.map_vjp(square, w))(w), J.map_vjp(square, w), rtol=1e-4)
    inside = jax.jit(lambda p: J.at(p).map_vjp(square, w))(built.args[0])
    np.testing.assert_allclose(inside, J.map_vjp(square, w), rtol=1e-4)


def test_twenty_regularised_training_steps_compile_once(compilations):
    f = BY_NAME["mlp"].build().target

    @jax.jit
    def train(params, x, w):
        def loss(p):
            J = linearize(f, p, x, batch_axis=0)
            return (J.outputs**2).mean() + 1e-3 * J.map_vjp(square, w).mean()

        value, slope = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), value

    params, x = BY_NAME["mlp"].build().args
    probes = [signs(s, 2, 21) for s in range(20)]
    params, first = train(params, x, probes[0])
    compilations()
    for w in probes[1:]:
        params, last = train(params, x, w)
    assert compilations() == 0
    assert last < first


def test_a_convolution_inside_jit_agrees_with_outside():
    built = BY_NAME["convnet"].build()
    params, x = built.args
    J, w = built.linearize(), signs(0, 3, 9)
    inside = jax.jit(lambda p: linearize(built.target, p, x).map_vjp(square, w, chunk=2))(params)
    np.testing.assert_allclose(inside, J.map_vjp(square, w), rtol=1e-4)
