"""What plan says, against what the methods then take; and what auto makes of it."""

import json

import numpy as np
import pytest

import ntkest
from ntkest.estimators import REVERSE, XNYSTRACE
from ntkest.inference import trace_of
from ntkest.quantities import pose
from tests import oracle


def dense(name, M=300, seed=0):
    return ntkest.from_jacobian(oracle.with_spectrum(oracle.spectra(M)[name], M, seed))


@pytest.mark.parametrize("quantity", ["trace", "frobenius_norm", "effective_rank"])
@pytest.mark.parametrize("name", ["power-1", "power-2", "flat"])
def test_passes_are_foreseen_to_a_small_factor(name, quantity):
    J = dense(name)
    prospects = ntkest.plan(J, 0.05, quantity=quantity)
    for method in ("xnystrace", "xtrace"):
        passes = [
            getattr(ntkest, quantity)(J, method=method, rtol=0.05, max_passes=5000, seed=seed).passes
            for seed in range(5)
        ]
        assert 0.3 < prospects[method].passes / np.median(passes) < 3


def test_the_best_comes_first_and_what_is_out_of_reach_last():
    prospects = ntkest.plan(dense("power-1"), 1e-4)
    passes = [p.passes for p in prospects.values() if p.reached]
    assert passes == sorted(passes)
    assert prospects.best is next(iter(prospects.values()))
    assert prospects["exact"].passes == 300
    assert prospects["exact"].reached
    assert [p.reached for p in prospects.values()] == sorted((p.reached for p in prospects.values()), reverse=True)
    assert all(p.seconds > 0 for p in prospects.values())
    assert all(p.bytes >= 0 for p in prospects.values())


def test_it_prints_a_table_and_goes_into_json():
    J = dense("step")
    prospects = ntkest.plan(J, 0.02, quantity="effective_rank")
    assert "effective_rank to 2 %" in str(prospects)
    assert "xnystrace" in str(prospects)
    assert json.loads(json.dumps(prospects.to_dict()))["methods"]["reverse"]["passes"] == prospects["reverse"].passes


@pytest.mark.parametrize("shape", [(60, 60), (40, 400)])
def test_passes_of_the_pilot_are_counted(shape):
    A = oracle.with_spectrum(1 / np.arange(1, 41), shape[0], 0, shape[1])
    J, calls = ntkest.from_jacobian(A), {"jvp": 0, "vjp": 0}
    for name in calls:
        inner = getattr(J, name)

        def counting(probes, name=name, inner=inner):
            calls[name] += (probes[0] if isinstance(probes, tuple) else probes).shape[0]
            return inner(probes)

        setattr(J, name, counting)
    assert ntkest.plan(J, 0.1).passes == calls["jvp"] + calls["vjp"]


def test_a_kernel_that_the_pilot_has_all_of_is_no_trouble():
    prospects = ntkest.plan(dense("rank-5"), 0.01)
    assert prospects["xnystrace"].passes == 16
    assert prospects.effective_rank == pytest.approx(5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"rtol": 0}, "rtol="),
        ({"rtol": "a"}, "rtol="),
        ({"quantity": "norm"}, "quantity="),
        ({"memory": "lots"}, "memory="),
        ({"memory": 50_000}, "no room for the 8 samples"),
        ({"seed": -1}, "seed="),
    ],
)
def test_bad_keywords_say_so(keywords, message):
    with pytest.raises(ntkest.NTKError, match=message):
        ntkest.plan(dense("flat"), **keywords)


@pytest.mark.parametrize("quantity", ["trace", "frobenius_norm"])
@pytest.mark.parametrize(("name", "passes"), [("power-1", 60), ("power-2", 60), ("step", 60), ("flat", 120)])
def test_auto_is_nearly_as_good_as_the_best(name, passes, quantity):
    """Median errors over seeds: within 1.6 times the best of the named ones, or next to nothing."""
    J = dense(name)
    truth = getattr(oracle, quantity)(np.diag(oracle.spectra(300)[name]))
    errors = {}
    for method in ("auto", "reverse", "xnystrace", "xtrace"):
        found = [float(getattr(ntkest, quantity)(J, method=method, passes=passes, seed=s)) for s in range(40)]
        errors[method] = np.median(np.abs(np.array(found) / truth - 1))
    assert errors["auto"] < max(1.6 * min(errors.values()), 1e-4)


def test_auto_at_a_fixed_cost_says_why_and_stays_within_it():
    J = dense("power-1")
    for passes in (10, 20, 50, 200):
        e = ntkest.trace(J, passes=passes)
        assert passes - 6 < e.passes <= passes
        assert e.method in e.why
    assert "exact" in ntkest.trace(J, passes=300).why


def test_auto_ends_where_a_sketch_has_everything():
    e = ntkest.effective_rank(dense("rank-5"), passes=200)
    assert e.passes < 60
    assert "whole range" in e.why
    assert float(e) == pytest.approx(5, rel=1e-12)


def test_a_tolerance_can_be_absolute():
    J = dense("power-1")
    e = ntkest.trace(J, rtol=0, atol=0.2)
    assert e.converged
    assert 0.02 < e.half_width <= 0.2
    assert ntkest.trace(J, rtol=0.5, atol=0.01).half_width > 0.01
    for keywords, message in (({"atol": -1}, "atol="), ({"atol": "x"}, "atol="), ({"rtol": 0}, "rtol=")):
        with pytest.raises(ntkest.NTKError, match=message):
            ntkest.trace(J, **keywords)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 40), (40, 2), (3, 3)])
@pytest.mark.parametrize("quantity", ["trace", "frobenius_norm", "effective_rank"])
def test_tiny_kernels_are_no_trouble(shape, quantity):
    A = np.random.default_rng(0).standard_normal(shape)
    for J in (ntkest.from_jacobian(A), ntkest.from_jacobian(0 * A)):
        prospects = ntkest.plan(J, 0.1, quantity=quantity)
        assert prospects["exact"].passes == min(shape)
        assert prospects["exact"].reached
    if shape[0] == 1:
        with pytest.raises(ntkest.NTKError, match="nothing of a single output"):
            ntkest.plan(J, quantity=quantity, centered=True)
    else:
        assert 0.9 < ntkest.plan(ntkest.from_jacobian(A), quantity=quantity, centered=True).effective_rank < 4


@pytest.mark.parametrize("name", ["flat", "power-1", "power-2", "step"])
def test_the_reason_of_auto_names_what_was_chosen(name):
    J = dense(name)
    for keywords in ({"passes": 30}, {"passes": 60}, {"rtol": 1e-6, "max_passes": 100}, {"rtol": 0.01}):
        for quantity in (ntkest.trace, ntkest.effective_rank):
            e = quantity(J, **keywords)
            assert e.why.startswith(e.method), e.why
            assert e.passes <= keywords.get("passes", keywords.get("max_passes", 2000))
    low, other = (ntkest.from_jacobian(np.random.default_rng(p).standard_normal((300, p))) for p in (2, 900))
    e = ntkest.alignment(low, other, passes=100)
    assert e.why.startswith(e.method), e.why


@pytest.mark.parametrize("quantity", ["trace", "frobenius_norm", "effective_rank"])
@pytest.mark.parametrize("shape", [(200, 200), (120, 1200), (1200, 120)])
def test_auto_reaches_a_tolerance_on_either_side(shape, quantity):
    """The second has so many parameters that the pilot's basis is kept on the side of the outputs."""
    A = oracle.with_spectrum(1 / np.arange(1, 121) ** 1.5, shape[0], 0, shape[1])
    e = getattr(ntkest, quantity)(ntkest.from_jacobian(A), rtol=0.1)
    assert e.converged
    assert e.passes < 120
    assert float(e) == pytest.approx(getattr(oracle, quantity)(A @ A.T), rel=0.2)


def test_auto_looks_before_the_pilot_is_complete():
    truth = oracle.effective_rank(np.diag(oracle.spectra(300)["flat"]))
    runs = [ntkest.effective_rank(dense("flat"), rtol=0.05, seed=seed) for seed in range(8)]
    assert {e.passes for e in runs} <= {8, 10, 12}
    assert all(e.converged and float(e) == pytest.approx(truth, rel=0.05) for e in runs)


def test_auto_waits_for_xtrace_at_little_loss():
    """The sketch grows until it has the samples that XTrace needs: from there on it is XTrace, as it ever was."""
    for seed in range(5):
        e = ntkest.frobenius_norm(dense("power-1"), rtol=0.02, seed=seed)
        assert e.converged
        if e.method == "xtrace":
            passes = 4 * e.about["samples"]
            fixed = ntkest.frobenius_norm(dense("power-1"), method="xtrace", passes=passes, seed=seed)
            assert fixed.passes == passes <= e.passes <= 1.2 * passes
            assert float(e) == pytest.approx(float(fixed), rel=1e-10)
    assert e.method == "xtrace"


def test_an_interrupted_pilot_keeps_what_it_has(monkeypatch):
    J, calls = dense("power-1"), []

    def stop(spent, expected):
        calls.append(spent)
        if len(calls) == 2:
            monkeypatch.setattr(type(J), "map_vjp", interrupt)

    def interrupt(*args, **keywords):
        raise KeyboardInterrupt

    e = ntkest.frobenius_norm(J, rtol=0.002, progress=stop)
    assert e.about["interrupted"] is True
    assert e.passes >= calls[1]


@pytest.mark.parametrize(("shape", "rtol"), [((300, 300), 0.1), ((400, 1600), 0.3)])
def test_half_a_sketch_is_enough_for_the_trace_of_a_flat_kernel(shape, rtol):
    """The probes of the pilot count as one-sided ones, at one pass each, whether their gradients are kept or not."""
    A = oracle.with_spectrum(np.linspace(1.2, 1, min(shape)), shape[0], 0, shape[1])
    J = ntkest.from_jacobian(A)
    e = ntkest.trace(J, rtol=rtol)
    assert e.method == "reverse"
    assert e.passes == e.about["samples"] == 4
    assert float(e) == pytest.approx(np.trace(A @ A.T), rel=rtol)
    more = ntkest.trace(J, rtol=rtol / 10, state=ntkest.trace(J, rtol=rtol, state=True).state)
    assert more.method == e.method
    assert more.converged
    assert float(more) == pytest.approx(np.trace(A @ A.T), rel=rtol / 10)


@pytest.mark.parametrize("parameters", [60, 600])
def test_probes_of_a_sketch_are_those_of_reverse_on_a_sphere(parameters):
    A = oracle.with_spectrum(1 / np.arange(1.0, 61), 60, 0, parameters)
    problem = pose(ntkest.from_jacobian(A), [trace_of(0)])
    captured = XNYSTRACE.capture(problem, None, XNYSTRACE.draw(problem, 3, 0, 5))
    captured = XNYSTRACE.capture(problem, captured, XNYSTRACE.draw(problem, 3, 5, 12))
    whole = XNYSTRACE.complete(problem, captured)
    again = XNYSTRACE.extend(problem, None, XNYSTRACE.draw(problem, 3, 0, 12))
    values = [float(XNYSTRACE.moments(problem, s)["trace", 0].value[0]) for s in (whole, again)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    probes = np.asarray(whole.probes) * (60**0.5 / np.linalg.norm(np.asarray(whole.probes), axis=1))[:, None]
    wanted = np.mean(np.sum((probes @ A) ** 2, axis=1))
    first = XNYSTRACE.extend(problem, None, XNYSTRACE.draw(problem, 3, 0, 5))
    more = XNYSTRACE.capture(problem, first, XNYSTRACE.draw(problem, 3, 5, 12))
    for sketch in (captured, whole, more):
        found = REVERSE.moments(problem, XNYSTRACE.one_sided(problem, sketch))["trace", 0]
        assert float(found.value[0]) == pytest.approx(wanted, rel=1e-12)
