"""Partial traces in jax: the same inside jit and vmap, gradients against finite differences, one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkest
from ntkest.partial.choice import METHODS
from tests.jax.cases import flat, signs
from tests.jax.test_jax_estimators import small

PASSES = {"exact": 12, "forward": 20, "reverse": 24, "hutchinson": 20, "nystrom++": 24, "auto": 11}


def traces(method):
    f, params, x, elsewhere, _ = small()

    def values(p):
        J = ntkest.linearize(f, p, x)
        found = ntkest.partial_trace(J, 0, method=method, passes=PASSES[method])
        return found.value, found.std_error, found.total.value

    return values, params, elsewhere


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("float64")
def test_a_fixed_cost_runs_in_jit_grad_and_vmap(method):
    values, params, elsewhere = traces(method)
    outside, there = values(params), values(elsewhere)
    for found, wanted in zip(jax.jit(values)(params), outside, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
    both = jax.vmap(values)(jax.tree.map(lambda *a: jnp.stack(a), params, elsewhere))
    for found, *wanted in zip(both, outside, there, strict=True):
        np.testing.assert_allclose(found, np.stack(wanted), rtol=1e-8)

    weights = jnp.arange(1.0, 7.0)
    slope = jax.jit(jax.grad(lambda p: (values(p)[0] * weights).sum()))(params)
    direction = jax.tree.map(lambda p: signs(p.size, *p.shape), params)
    step = 1e-5
    ahead, behind = (
        (values(jax.tree.map(lambda p, d: p + h * d, params, direction))[0] * weights).sum()  # noqa: B023
        for h in (step, -step)
    )
    along = sum((flat(slope)[n] * d).sum() for n, d in flat(direction).items())
    np.testing.assert_allclose(along, (ahead - behind) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_single_precision_agrees_with_itself_inside_jit(method):
    values, params, _ = traces(method)
    for found, wanted in zip(jax.jit(values)(params), values(params), strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, wanted, rtol=2e-3)


def test_a_tolerance_and_intervals_are_refused_inside_jit():
    f, params, x, *_ = small()
    with pytest.raises(ntkest.NTKError, match="cannot be traced"):
        jax.jit(lambda p: ntkest.diagonal(ntkest.linearize(f, p, x), method="forward", rtol=0.1).value)(params)
    with pytest.raises(ntkest.NTKError, match="tracing"):
        jax.jit(lambda p: ntkest.diagonal(ntkest.linearize(f, p, x), passes=20).interval()[0])(params)


@pytest.mark.parametrize("method", ["forward", "nystrom++"])
def test_other_parameters_and_seeds_do_not_compile_again(method, compilations):
    f, params, x, elsewhere, _ = small()
    ntkest.partial_trace(ntkest.linearize(f, params, x), 0, method=method, passes=24)
    compilations()
    for seed, p in ((1, params), (2, elsewhere)):
        ntkest.partial_trace(ntkest.linearize(f, p, x), 0, method=method, passes=24, seed=seed)
    assert compilations() == 0
