"""Both maps of the jax adapter against explicit Jacobians of the same functions written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jax.cases import CASES, signs

pytestmark = pytest.mark.usefixtures("float64")


def blocks_of(jacobian, J):
    return [jacobian[name] for name in J.param_names]


def squares(images):
    images = images if isinstance(images, tuple) else (images,)
    return sum((a * a).sum(1) for a in images)


def doubled_probe(packed):
    return jax.tree.map(lambda a: 2.0 * a, packed)


@pytest.mark.parametrize("case", CASES)
def test_everything_about_a_case_agrees_with_its_explicit_jacobian(case):
    built = case.build()
    J = built.linearize()
    outputs = jax.jit(built.plain)(built.point)
    assert sorted(J.param_names) == sorted(built.point)
    assert J.modes == frozenset(case.modes.split())
    assert J.examples == case.examples
    np.testing.assert_allclose(J.outputs, outputs, rtol=1e-9, atol=1e-11)
    for name, block in zip(J.param_names, J.params, strict=True):
        np.testing.assert_array_equal(block, built.point[name])

    A = blocks_of(built.jacobian(), J)
    k = 5
    v = tuple(signs(i, k, a.shape[1]) for i, a in enumerate(A))
    Jv = sum(p @ a.T for p, a in zip(v, A, strict=True))
    np.testing.assert_allclose(J.jvp(v), Jv, rtol=1e-8, atol=1e-9)
    for chunk in (None, 2):
        found = J.map_jvp(squares, v, expand=doubled_probe, chunk=chunk)
        np.testing.assert_allclose(found, 4 * np.sum(Jv**2, axis=1), rtol=1e-8)
    assert 1 <= J.chunk_size("jvp", k) <= k
    if "vjp" not in J.modes:
        return
    w = signs(99, k, A[0].shape[0])
    for found, a in zip(J.vjp(w), A, strict=True):
        np.testing.assert_allclose(found, w @ a, rtol=1e-8, atol=1e-9)
    for chunk in (None, 2):
        found = J.map_vjp(squares, w, expand=doubled_probe, chunk=chunk)
        np.testing.assert_allclose(found, 4 * sum(np.sum((w @ a) ** 2, axis=1) for a in A), rtol=1e-8)
    assert 1 <= J.chunk_size("vjp", k) <= k


def test_the_jacobian_of_a_gru_agrees_with_finite_differences():
    from tests.jax.cases import gru

    built = gru()
    J = built.linearize()
    v = tuple(signs(i, 1, p.size) for i, p in enumerate(J.params))
    step = 1e-6

    def moved(h):
        return built.plain({n: p + h * t.reshape(p.shape) for n, p, t in zip(J.param_names, J.params, v, strict=True)})

    slope = (moved(step) - moved(-step)) / (2 * step)
    np.testing.assert_allclose(J.jvp(v)[0], slope.reshape(-1), rtol=1e-6, atol=1e-8)


def test_results_of_reduce_may_be_nested_and_keep_their_order():
    from tests.jax.cases import mlp

    J = mlp(jnp.tanh).linearize()
    w = signs(0, 5, J.outputs.size)
    first, (second, third) = J.map_vjp(lambda b: (b[0], (b[1].sum(1), b[2][:, :2])), w, chunk=3)
    pulled = J.vjp(w)
    np.testing.assert_allclose(first, pulled[0], rtol=1e-12)
    np.testing.assert_allclose(second, pulled[1].sum(1), rtol=1e-10)
    np.testing.assert_allclose(third, pulled[2][:, :2], rtol=1e-12)


def test_a_double_vjp_counts_as_two_passes():
    from tests.jax.cases import custom_rules, mlp

    assert custom_rules().linearize().passes_per_jvp == 2
    assert mlp(jnp.tanh).linearize().passes_per_jvp == 1
