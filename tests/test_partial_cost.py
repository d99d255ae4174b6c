"""What partial traces cost: passes and memory, growth, a tolerance, and the choice of the estimator."""

import itertools

import numpy as np
import pytest

import ntkest
from ntkest.partial.choice import METHODS
from ntkest.partial.layout import layout_over
from tests import oracle
from tests.partial_cases import (
    PASSES,
    SAMPLING,
    SHAPE,
    A,
    K,
    dense,
    traces,
)


@pytest.mark.parametrize("by", [None, "layer"])
@pytest.mark.parametrize("over", [(0,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_passes_reported_are_passes_made_and_no_more_than_allowed(method, over, by):
    for budget in ({"passes": 200}, {"rtol": 0.1, "max_passes": 150}):
        J = dense()
        found = ntkest.partial_trace(J, over, method=method, by=by, **budget)
        assert found.passes == J.pushed == found.n_jvp + found.n_vjp
        assert found.passes <= max(budget.values())


@pytest.mark.parametrize("method", ["forward", "reverse", "hutchinson"])
def test_little_memory_changes_nothing_but_rounding(method):
    J = ntkest.from_jacobian(A, SHAPE)
    calls = [ntkest.partial_trace(J, 1, method=method, passes=PASSES, by="layer", memory=m) for m in ("2GB", 100)]
    for name in ("value", "std_error"):
        np.testing.assert_allclose(*(getattr(found, name) for found in calls), rtol=1e-10)


def test_little_memory_means_fewer_columns():
    J = dense()
    found = ntkest.partial_trace(J, 1, method="nystrom++", passes=PASSES, memory=5 * 4 * 8 * 36)
    assert found.n_vjp == 5
    assert found.about["samples"] == PASSES - 10
    assert J.pushed == PASSES
    z = (found.value - traces(K, (1,))) / found.std_error
    assert np.abs(z).max() < 5


@pytest.mark.parametrize("method", SAMPLING)
def test_growing_gives_what_drawing_all_at_once_gives(method):
    from ntkest.estimators import Counted, Problem
    from ntkest.partial.choice import SAMPLERS
    from ntkest.partial.task import Task
    from ntkest.tangents import group_parameters

    def run(cuts):
        J = ntkest.from_jacobian(A, SHAPE)
        problem = Problem.of((Counted(J),), groups=group_parameters(J.param_names, "layer"), needs=frozenset())
        task, sampler, state, cost = Task(problem, layout_over(J, 1), 3), SAMPLERS[method], None, 0
        for start, stop in itertools.pairwise(cuts):
            cost += sampler.growth(task, start, stop)
            state = sampler.extend(task, state, start, stop)
            assert problem.passes == cost
        return sampler.gathered(task, state)

    at_once, pieces = run((0, 13)), run((0, 4, 5, 13))
    assert pieces.spread.count == at_once.spread.count == 13
    np.testing.assert_allclose(pieces.spread.mean, at_once.spread.mean, rtol=1e-7, atol=1e-20)
    np.testing.assert_allclose(pieces.spread.squares, at_once.spread.squares, rtol=1e-7, atol=1e-20)
    if method == "nystrom++":
        np.testing.assert_allclose(pieces.known, at_once.known, rtol=1e-9)


def spectrum(name, size=400):
    B = oracle.with_spectrum(oracle.spectra(size)[name], size)
    return ntkest.from_jacobian(B, (size // 10, 10)), (B**2).sum(axis=1).reshape(-1, 10)


@pytest.mark.parametrize("method", ["auto", "forward", "nystrom++"])
@pytest.mark.parametrize("name", ["exponential", "power-2", "flat"])
def test_a_tolerance_is_met_for_each_entry_or_relative_to_the_mean(name, method):
    J, diagonal = spectrum(name)
    found = ntkest.partial_trace(J, 1, rtol=0.2, method=method, seed=2)
    wanted = diagonal.sum(axis=0)
    assert found.converged
    allowed = 0.2 * np.maximum(found.value, found.value.mean())
    assert (found.half_width <= allowed).all()
    assert (np.abs(found.value - wanted) <= 1.5 * allowed).all()


def test_an_absolute_tolerance_is_met():
    J, diagonal = spectrum("power-2")
    atol = 0.4 * diagonal.sum(axis=1).max()
    found = ntkest.partial_trace(J, 0, rtol=0, atol=atol, method="forward")
    assert found.converged
    assert (found.half_width <= atol).all()
    assert found.passes < ntkest.partial_trace(J, 0, rtol=0.1, method="forward").passes


def test_auto_takes_what_the_spectrum_asks_for():
    chosen = {name: ntkest.diagonal(spectrum(name)[0], rtol=0.2).method for name in ("exponential", "power-2", "flat")}
    assert chosen == {"exponential": "nystrom++", "power-2": "nystrom++", "flat": "hutchinson"}
    J, wanted = spectrum("power-1")
    found = ntkest.diagonal(J, rtol=0.01)
    assert found.method == "exact"
    assert "cost less than" in found.why
    assert found.passes <= 1.6 * 400
    np.testing.assert_allclose(found.value, wanted, rtol=1e-12)
    few = ntkest.partial_trace(spectrum("flat", 2000)[0], 1, rtol=0.2)
    assert few.method == "forward"
    assert few.passes <= 24


@pytest.mark.parametrize(("modes", "method"), [(("vjp",), "reverse"), (("jvp",), "forward")])
def test_auto_keeps_to_the_modes_that_there_are(modes, method):
    J = dense(modes=modes)
    for budget in ({"passes": 20}, {"max_passes": 20}):
        found = ntkest.partial_trace(J, 0, **budget)
        assert found.method == method
        assert "there is no" in found.why
        assert found.passes <= 20


def test_auto_with_a_fixed_cost():
    assert ntkest.diagonal(dense(), passes=24).method == "exact"
    assert ntkest.partial_trace(spectrum("flat")[0], 0, passes=60).method == "nystrom++"
    assert ntkest.partial_trace(spectrum("flat")[0], 0, passes=20).method == "forward"


@pytest.mark.slow
@pytest.mark.parametrize("over", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("name", ["exponential", "power-1", "power-2", "step", "flat", "rank-5"])
def test_auto_meets_its_tolerance(name, over):
    """98 % of the entries of 100 runs, at no more than 1.5 times what exact takes."""
    J, diagonal = spectrum(name, 600)
    wanted = diagonal if len(over) == 2 else diagonal.sum(axis=1 - over[0])
    within, passes = [], []
    for seed in range(100):
        found = ntkest.partial_trace(J, over, rtol=0.1, seed=seed)
        assert found.converged
        within.append(np.abs(found.value - wanted) <= 0.1 * np.maximum(wanted, wanted.mean()))
        passes.append(found.passes)
    assert np.mean(within) >= 0.98
    assert np.mean(passes) <= 1.5 * 600


def test_what_the_budget_cannot_reach_is_said():
    found = ntkest.diagonal(spectrum("power-1")[0], rtol=0.01, max_passes=100, method="forward")
    assert found.passes == 100
    assert not found.converged


def test_progress_is_told_and_an_interruption_keeps_what_is_done():
    told = []
    ntkest.diagonal(spectrum("power-1")[0], rtol=0.1, max_passes=120, progress=lambda *a: told.append(a))
    assert told[-1][0] == told[-1][1] <= 120

    J, _ = spectrum("power-1")
    calls = []
    original = J.map_jvp

    def map_jvp(*args, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **keywords)

    J.map_jvp = map_jvp
    found = ntkest.diagonal(J, rtol=0.01, max_passes=400, method="forward")
    assert found.about["interrupted"]
    assert found.about["samples"] == 32
