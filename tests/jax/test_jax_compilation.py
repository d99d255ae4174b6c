"""What is compiled once, and what must never be shared."""

from functools import partial
from threading import Thread

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ntkest_jax.cache import Memory
from ntkest_jax.structure import structure

from tests.jax.cases import draw, linearize, signs


def loss_net(params, x):
    return jnp.tanh(jax.nn.relu(x @ params["a"]) @ params["b"])


def squares(blocks):
    return sum((b * b).sum(1) for b in blocks)


def point(seed):
    return {"a": draw(seed, 3, 4, scale=0.4), "b": draw(seed + 100, 4, 2, scale=0.4)}


def test_twenty_steps_with_fresh_lambdas_and_new_data_compile_once(compilations):
    steps = [(point(s), draw(s, 6, 3), draw(s, 4), signs(s, 5, 12), signs(s, 5, 8)) for s in range(20)]
    per_step = []
    for params, x, shift, cotangents, tangents in steps:
        compilations()
        J = linearize(lambda p, x: loss_net(p, x + shift[:3]) * 0.5, params, x)  # noqa: B023 - called at once
        found = J.map_vjp(squares, cotangents)
        J.jvp((jnp.tile(tangents, (1, 2))[:, :12], tangents))
        J.at(params).vjp(cotangents)
        found.block_until_ready()
        per_step.append(compilations())
        plain = jax.vjp(lambda p: loss_net(p, x + shift[:3]) * 0.5, params)[1]  # noqa: B023 - called at once
        wanted = [sum(float((g * g).sum()) for g in jax.tree.leaves(plain(w.reshape(6, 2)))) for w in cotangents]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert per_step[0] > 0
    assert per_step[1:] == [0] * 19


def test_the_first_linearization_compiles_few_programs(compilations):
    params, x = point(0), draw(0, 7, 3)
    compilations()
    linearize(lambda p, x: loss_net(p, x) * 0.25, params, x)
    assert compilations() <= 4  # outputs and checks, one example alone, and copies


def test_a_closure_over_changed_data_gives_new_numbers():
    data = {"x": draw(0, 5, 3)}

    def f(p):
        return loss_net(p, data["x"])

    first = linearize(f, point(0))
    w = signs(0, 1, 10)
    before = np.asarray(first.vjp(w)[0])
    data["x"] = 2 * data["x"]
    second = linearize(f, point(0))
    assert not np.allclose(before, second.vjp(w)[0])
    np.testing.assert_array_equal(before, first.vjp(w)[0])


@pytest.mark.parametrize("factor", [2, 3.0, np.float32(4.0)])
def test_numbers_baked_into_a_function_tell_programs_apart(factor):
    params, x, w = point(0), draw(0, 5, 3), signs(0, 1, 10)
    plain = linearize(loss_net, params, x).vjp(w)
    scaled = linearize(lambda p, x: loss_net(p, x) * factor, params, x).vjp(w)
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(factor * np.asarray(a), b, rtol=1e-6)


def with_slope(slope):
    @jax.custom_jvp
    def same_values(x):
        return jnp.sin(x)

    same_values.defjvp(lambda p, t: (jnp.sin(p[0]), slope * p[0] * t[0]))
    return same_values


def test_custom_rules_that_differ_never_share_a_program():
    x = draw(0, 5)
    for slope in (1.0, 2.0, 3.0):
        f = with_slope(slope)
        J = linearize(lambda p: f(p), x)  # noqa: B023 - called at once
        np.testing.assert_allclose(J.vjp(jnp.ones((1, 5)))[0][0], slope * x, rtol=1e-6)


def test_second_derivatives_use_the_own_custom_rule_of_a_shared_program():
    x = draw(0, 5)
    for slope in (1.0, 2.0):
        f = with_slope(slope)
        J = linearize(lambda p: f(f(p)), x, check=False)  # noqa: B023 - called at once

        def norm(p):
            return (J.at(p).vjp(jnp.ones((1, 5)))[0] ** 2).sum()  # noqa: B023 - called at once

        def wanted(p):
            return (jax.grad(lambda q: f(f(q)).sum())(p) ** 2).sum()  # noqa: B023 - called at once

        np.testing.assert_allclose(jax.grad(norm)(x), jax.grad(wanted)(x), rtol=1e-5)


def test_arrays_inside_jitted_closures_tell_programs_apart():
    for seed in range(3):
        shift = np.asarray(draw(seed, 4, 2))
        f = jax.jit(lambda p: jnp.sin(p) * shift)  # noqa: B023 - called at once
        p = draw(0, 4, 2)
        wanted = np.cos(p) * shift
        np.testing.assert_allclose(linearize(f, p).vjp(jnp.ones((1, 8)))[0][0], wanted.reshape(-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 0.0, lambda x: x + -0.0),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x.sum(0), lambda x: x.sum(1)),
        (lambda x: jnp.sin(x), lambda x: jnp.cos(x)),
        (lambda x: x[:2] - x[1:], lambda x: x[1:] - x[:2]),
        (lambda x: lax.scan(lambda c, a: (c + a, c), x[0], x), lambda x: lax.scan(lambda c, a: (c + a, a), x[0], x)),
        (lambda x: x.astype(jnp.bfloat16), lambda x: x.astype(jnp.float16)),
    ],
)  # fmt: skip
def test_different_functions_have_different_structures(one, other):
    x = jnp.ones((3, 3))
    keys = [structure(jax.make_jaxpr(f)(x).jaxpr) for f in (one, other)]
    assert keys[0] != keys[1]
    assert keys[0] == structure(jax.make_jaxpr(lambda y: one(y))(x).jaxpr)
    assert hash(keys[0]) == hash(structure(jax.make_jaxpr(lambda y: one(y))(x).jaxpr))


def test_a_memory_forgets_what_was_not_asked_for_the_longest():
    memory = Memory[int](2)
    found = [memory.get(k, partial(int, v)) for k, v in [("a", 1), ("b", 2), ("a", 9), ("c", 3)]]
    assert found == [1, 2, 1, 3]
    assert len(memory) == 2
    assert memory.get("b", lambda: 7) == 7


def test_threads_that_linearize_at_once_get_their_own_numbers():
    results = {}

    def work(seed):
        params, x = point(seed), draw(seed, 6, 3)
        J = linearize(lambda p, x: loss_net(p, x), params, x)
        results[seed] = (J.map_vjp(squares, signs(seed, 3, 12)), params, x)

    threads = [Thread(target=work, args=(s,)) for s in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 6
    for seed, (found, params, x) in results.items():
        pull = jax.vjp(lambda p: loss_net(p, x), params)[1]  # noqa: B023 - called at once
        grads = [pull(w.reshape(6, 2))[0] for w in signs(seed, 3, 12)]
        wanted = [float((g["a"] ** 2).sum() + (g["b"] ** 2).sum()) for g in grads]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_compile_gives_one_jitted_function_for_equal_functions():
    J = linearize(loss_net, point(0), draw(0, 5, 3))
    assert J.compile(squares) is J.compile(squares)
    np.testing.assert_allclose(J.compile(squares)((jnp.ones((2, 3)),)), [3.0, 3.0])
