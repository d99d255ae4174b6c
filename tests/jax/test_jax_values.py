"""A linearization is a value; and what precisions and leaves do to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkest.linearization import StaleLinearizationError
from tests.jax.cases import BY_NAME, draw, linearize, signs


def f(params, x):
    return jnp.tanh(x @ params["w"])


def test_numpy_arrays_may_change_afterwards():
    params, x, shift = {"w": np.ones((3, 2), np.float32)}, np.ones((4, 3), np.float32), np.ones(2, np.float32)
    J = linearize(lambda p, x: f(p, x) * shift, params, x, batch_axis=0)
    w, v = signs(0, 2, 8), (signs(1, 2, 6),)
    before = np.asarray(J.vjp(w)[0]), np.asarray(J.jvp(v)), np.asarray(J.outputs)
    params["w"][:] = 5.0
    x[:] = 7.0
    shift[:] = 9.0
    for old, new in zip(before, (J.vjp(w)[0], J.jvp(v), J.outputs), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(J.params[0], np.ones((3, 2)))


def test_numpy_parameters_come_back_as_jax_arrays():
    J = linearize(f, {"w": np.ones((3, 2))}, np.ones((4, 3)))
    assert isinstance(J.params[0], jax.Array)
    assert J.params[0].dtype == jnp.float32
    assert J.xp is jnp


def test_donated_parameters_make_it_stale_unless_it_has_copies():
    train = jax.jit(lambda p: jax.tree.map(lambda a: a + 1, p), donate_argnums=0)
    params, x = {"w": draw(0, 3, 2)}, draw(1, 4, 3)
    J, copied = linearize(f, params, x), linearize(f, params, x, copy=True)
    before = copied.vjp(signs(0, 1, 8))[0]
    train(params)
    with pytest.raises(StaleLinearizationError, match="donated"):
        J.vjp(signs(0, 1, 8))
    np.testing.assert_array_equal(copied.vjp(signs(0, 1, 8))[0], before)


def test_at_other_parameters_equals_a_fresh_linearization_without_tracing_again():
    traces = []

    def counted(params, x):
        traces.append(1)
        return f(params, x)

    params, x = {"w": draw(0, 3, 2)}, draw(1, 4, 3)
    J = linearize(counted, params, x)
    traces.clear()
    moved = {"w": 3 * params["w"]}
    there = J.at(moved)
    assert traces == []
    fresh = linearize(counted, moved, x)
    np.testing.assert_array_equal(there.vjp(signs(0, 3, 8))[0], fresh.vjp(signs(0, 3, 8))[0])
    np.testing.assert_array_equal(there.outputs, fresh.outputs)
    assert (there.exponent, there.examples) == (fresh.exponent, fresh.examples)
    np.testing.assert_array_equal(J.params[0], params["w"])


def test_at_other_batch_statistics_is_another_function():
    pytest.importorskip("flax")
    built = BY_NAME["linen"].build()
    net, (variables, x) = built.target, built.args
    other = {**variables, "batch_stats": jax.tree.map(lambda a: 2 * a + 1, variables["batch_stats"])}
    moved = linearize(net, variables, x).at(other)
    np.testing.assert_allclose(moved.outputs, net.apply(other, x), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_stay_in_their_dtype(dtype):
    params, x = {"w": draw(0, 3, 2).astype(dtype)}, draw(1, 4, 3).astype(dtype)
    J = linearize(f, params, x)
    assert J.examples == (0, 4)
    w, v = signs(0, 3, 8).astype(dtype), (signs(1, 3, 6).astype(dtype),)
    assert J.outputs.dtype == J.jvp(v).dtype == J.vjp(w)[0].dtype == dtype
    exact = linearize(f, {"w": params["w"].astype(jnp.float32)}, x.astype(jnp.float32))
    np.testing.assert_allclose(J.vjp(w)[0].astype(jnp.float32), exact.vjp(w.astype(jnp.float32))[0], rtol=0.1, atol=0.1)


def test_mixed_precision_inside_sets_the_tolerance():
    def half(params, x):
        return f({"w": params["w"].astype(jnp.bfloat16)}, x.astype(jnp.bfloat16)).astype(jnp.float32)

    J = linearize(half, {"w": draw(0, 3, 2)}, draw(1, 4, 3))
    assert J.outputs.dtype == J.params[0].dtype == jnp.float32
    assert J.examples == (0, 4)


def test_a_python_float_keeps_its_weak_type():
    params = {"gain": 2.0, "w": draw(0, 3, 2).astype(jnp.bfloat16)}
    J = linearize(lambda p, x: f(p, x) * p["gain"], params, draw(1, 4, 3).astype(jnp.bfloat16))
    assert J.outputs.dtype == jnp.bfloat16
    assert J.param_names == ("gain", "w")


def test_one_array_at_two_places_counts_twice_as_in_jax_grad():
    w, x = draw(0, 3, 3), draw(1, 4, 3)
    J = linearize(lambda p, x: x @ p["a"] @ p["b"], {"a": w, "b": w}, x)
    first, second = J.vjp(jnp.ones((1, 12)))
    np.testing.assert_allclose(first[0], np.outer(np.asarray(x).sum(0), np.asarray(w).sum(1)).ravel(), rtol=1e-5)
    np.testing.assert_allclose(second[0], np.repeat((x @ w).sum(0), 3), rtol=1e-5)


def test_float64_is_used_where_it_is_enabled(float64):
    J = linearize(f, {"w": draw(0, 3, 2)}, draw(1, 4, 3))
    assert J.outputs.dtype == J.params[0].dtype == J.vjp(signs(0, 1, 8))[0].dtype == jnp.float64


def test_the_exponent_is_that_of_the_images():
    params, x = {"w": 1e-3 * draw(0, 3, 2)}, draw(1, 4, 3)
    exponents = [linearize(lambda p, x: s * f(p, x), params, x).exponent for s in (2.0**-40, 1.0, 2.0**30)]  # noqa: B023
    assert exponents == [exponents[1] - 40, exponents[1], exponents[1] + 30]


def test_time_axes_and_interacting_examples_are_told_apart():
    params, x = {"w": draw(0, 3, 2)}, draw(1, 4, 3)
    assert linearize(lambda p, x: f(p, x - x.mean(0)), params, x).examples is None
    assert linearize(f, params, x, batch_axis=None).examples is None
    assert linearize(f, params, x, batch_axis=-2).examples == (0, 4)
    assert linearize(lambda p: f(p, x), params).examples is None  # no input to tell by
    assert linearize(f, params, x, check=False, batch_axis=0).examples == (0, 4)


def test_a_linearization_without_checks_has_the_same_maps():
    built = BY_NAME["mlp"].build()
    checked, quick = built.linearize(), built.linearize(check=False)
    assert quick.exponent == 0
    assert quick.examples is None
    np.testing.assert_allclose(quick.outputs, checked.outputs, rtol=1e-6)
    np.testing.assert_allclose(quick.vjp(signs(0, 1, 21))[0], checked.vjp(signs(0, 1, 21))[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("output", "expected"),
    [("features", (4, 2)), (lambda o: o["score"][:, -1], (4,)), (None, (4, 4))],
)
def test_output_picks_what_is_differentiated(output, expected):
    def several(params, x):
        return {"features": f(params, x), "score": 2 * f(params, x)}

    params, x = {"w": draw(0, 3, 2)}, draw(1, 4, 3)
    J = linearize(several, params, x, output=output)
    assert J.outputs.shape == expected
    assert J.examples == (0, 4)


def test_random_keys_are_inputs_and_make_examples_interact():
    def noisy(params, x, key):
        return f(params, x) * jax.random.bernoulli(key, 0.5, (x.shape[0], 2))

    params, x, key = {"w": draw(0, 3, 2)}, draw(1, 64, 3), jax.random.key(0)
    J = linearize(noisy, params, x, key)
    np.testing.assert_allclose(J.outputs, noisy(params, x, key), rtol=1e-6)
    assert J.examples is None
