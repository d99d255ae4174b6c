"""How much is sampled: fixed costs, tolerances, budgets, the choice of estimator, interruption."""

import numpy as np
import pytest

import ntkest
from ntkest.estimators import ESTIMATORS, METHODS
from ntkest.inference import alignment_of, frobenius_norm_of, trace_of
from ntkest.quantities import pose
from tests import oracle

SAMPLING = [method for method in METHODS if method not in ("auto", "exact", "reverse-by-example")]
"""For the last see test_perexample.py: kernels here have no examples."""


def dense(M=80, P=120, decay=1.0, seed=0, blocks=None):
    A = oracle.with_spectrum(1.0 / np.arange(1, min(M, P) + 1) ** decay, M, seed, P)
    return ntkest.from_jacobian(A), oracle.kernel(A)


@pytest.mark.parametrize("method", SAMPLING)
def test_a_tolerance_is_met_or_said_not_to_be(method):
    J, K = dense(decay=0.5)
    met = ntkest.trace(J, method=method, rtol=0.05)
    assert met.converged
    assert met.half_width <= 0.05 * abs(float(met))
    assert abs(float(met) / oracle.trace(K) - 1) < 0.1
    poor = ntkest.trace(J, method=method, rtol=1e-4, max_passes=60)
    assert not poor.converged
    assert 40 <= poor.passes <= 60


@pytest.mark.parametrize("quantities", [[trace_of(0)], [frobenius_norm_of(0)], [alignment_of(0, 1)]])
@pytest.mark.parametrize("method", [method for method in SAMPLING if method != "adaptive-hutch++"])
def test_no_passes_are_left_that_would_pay_for_another_sample(method, quantities):
    """Unless there can be no more of them."""
    estimator = ESTIMATORS[method]
    J, other = (dense(M=12, P=P, seed=P)[0] for P in (40, 30))
    problem = pose(J, quantities, (other,) if len(quantities[0].keys) == 3 else ())
    most = estimator.samples(problem, 10**9)
    for passes in range(120):
        samples = max(0, estimator.samples(problem, passes))
        assert samples == 0 or estimator.passes(problem, samples) <= passes
        assert samples == most or estimator.passes(problem, samples + 1) > passes


@pytest.mark.parametrize("method", ["reverse", "forward", "hutchinson"])
def test_growth_reaches_the_need_without_wild_excess(method):
    """A third of the passes would not have been enough."""
    J, _ = dense(decay=0.5)
    for quantity in (ntkest.trace, ntkest.frobenius_norm):
        e = quantity(J, method=method, rtol=0.02, max_passes=10**5)
        assert e.converged
        fewer = quantity(J, method=method, passes=max(12, e.passes // 3))
        assert not fewer.half_width <= 0.02 * abs(float(fewer))


def test_a_run_to_a_tolerance_is_the_fixed_run_of_as_many_passes():
    J, _ = dense()
    e = ntkest.effective_rank(J, method="reverse", rtol=0.2, seed=4)
    fixed = ntkest.effective_rank(J, method="reverse", passes=e.passes, seed=4)
    assert float(e) == pytest.approx(float(fixed), rel=1e-12)
    assert e.interval() == pytest.approx(fixed.interval(), rel=1e-8)


@pytest.mark.parametrize("method", SAMPLING)
@pytest.mark.parametrize("passes", [24, 33, 64, 101])
def test_a_fixed_cost_is_never_exceeded_and_nearly_used(method, passes):
    J, _ = dense()
    for quantity in (ntkest.trace, ntkest.effective_rank):
        e = quantity(J, method=method, passes=passes)
        assert passes - 6 < e.passes <= passes


def test_auto_is_exact_where_that_costs_no_more():
    J, K = dense(M=12, P=300)
    e = ntkest.trace(J)
    assert (e.method, e.passes) == ("exact", 12)
    assert float(e) == pytest.approx(oracle.trace(K), rel=1e-12)
    assert "exact" in e.why
    J, K = dense(M=300, P=9)
    e = ntkest.effective_rank(J)
    assert (e.method, e.passes) == ("exact", 9)
    assert float(e) == pytest.approx(oracle.effective_rank(K), rel=1e-10)


def test_auto_turns_exact_when_the_tolerance_would_cost_more():
    J, K = dense(M=90, P=200, decay=0.5)
    e = ntkest.frobenius_norm(J, rtol=1e-4)
    assert e.method == "exact"
    assert e.passes <= 90 + 4 * 8  # and a pilot
    assert float(e) == pytest.approx(oracle.frobenius_norm(K), rel=1e-10)


@pytest.mark.parametrize("keywords", [{"by": "parameter"}, {"max_passes": 40}])
def test_without_a_pilot_auto_prefers_the_side_whose_probes_vary_less(keywords):
    draw = np.random.default_rng(0)
    spread = draw.standard_normal((200, 300))
    assert ntkest.trace(ntkest.from_jacobian(spread), rtol=0.2, **keywords).method == "reverse"
    assert ntkest.trace(ntkest.from_jacobian(spread.T), rtol=0.2, **keywords).method == "forward"
    # orthogonal columns of very different length: JᵀJ is diagonal, so sign tangents have no variance at all
    columns = np.linalg.qr(draw.standard_normal((200, 150)))[0] * 0.8 ** np.arange(150)
    wide = np.concatenate([columns, np.zeros((200, 100))], axis=1)
    assert ntkest.trace(ntkest.from_jacobian(wide), rtol=0.05, by="parameter", max_passes=64).method == "forward"


def test_an_interrupt_keeps_what_was_finished(monkeypatch):
    J, _ = dense(decay=0.5)
    calls = []

    def stop(spent, expected):
        calls.append((spent, expected))
        if len(calls) == 2:
            monkeypatch.setattr(type(J), "map_vjp", interrupt)

    def interrupt(*args, **keywords):
        raise KeyboardInterrupt

    e = ntkest.trace(J, method="reverse", rtol=1e-3, max_passes=10**5, progress=stop)
    assert e.about["interrupted"] is True
    assert e.passes >= calls[1][0]
    assert not e.converged
    assert float(e) > 0


def test_an_interrupt_before_anything_is_finished_is_raised(monkeypatch):
    J, _ = dense()

    def interrupt(*args, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(J), "map_vjp", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ntkest.trace(J, method="reverse")


def test_progress_ends_at_what_was_spent(capsys):
    J, _ = dense()
    seen = []
    e = ntkest.trace(J, method="reverse", rtol=0.1, progress=lambda spent, expected: seen.append((spent, expected)))
    assert [spent for spent, _ in seen] == sorted(spent for spent, _ in seen)
    assert seen[-1] == (e.passes, e.passes)
    ntkest.trace(J, method="reverse", rtol=0.1, progress=True)
    assert f"{e.passes} of about {e.passes} passes\n" in capsys.readouterr().err


def test_the_seed_decides_and_nothing_else_does():
    J, _ = dense()
    np.random.seed(0)
    first = ntkest.trace(J, passes=20, seed=1)
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    assert float(ntkest.trace(J, passes=20, seed=1)) == float(first)
    assert float(ntkest.trace(J, passes=20, seed=2)) != float(first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("method", ["auto", "exact", *SAMPLING])
def test_chunks_change_nothing_beyond_rounding(method, chunk):
    J, _ = dense()
    for quantity in (ntkest.trace, ntkest.effective_rank):
        whole = quantity(J, method=method, passes=64)
        cut = quantity(J, method=method, passes=64, chunk=chunk)
        assert float(cut) == pytest.approx(float(whole), rel=1e-12)
        assert cut.interval() == pytest.approx(whole.interval(), rel=1e-8)
        assert cut.about["chunk"] == chunk


@pytest.mark.parametrize("text", ["2GB", "512 MiB", "1e", "0.5 GB", 4096])
def test_memory_is_read_as_people_write_it(text):
    from ntkest.memory import byte_count

    wanted = {"2GB": 2 * 10**9, "512 MiB": 512 * 2**20, "0.5 GB": 5 * 10**8, 4096: 4096}
    if text in wanted:
        assert byte_count(text) == wanted[text]
    else:
        with pytest.raises(ntkest.NTKError, match="memory="):
            byte_count(text)
