"""A run that is carried on is one longer run; what cannot be carried on says so."""

import numpy as np
import pytest

import ntkest
from tests import oracle

RESUMABLE = ["reverse", "forward", "hutchinson", "hutch++", "hutch++jv", "xnystrace", "xtrace", "xtrace-power"]


def dense(M=120, P=150, seed=0):
    return ntkest.from_jacobian(oracle.with_spectrum(1 / np.arange(1, M + 1), M, seed, P))


@pytest.mark.parametrize("method", RESUMABLE)
def test_more_passes_later_are_one_longer_run(method):
    J = dense()
    y = np.random.default_rng(0).standard_normal(120)
    for call in (ntkest.trace, ntkest.effective_rank, lambda J, **k: ntkest.alignment(J, y, **k)):
        part = call(J, method=method, passes=33, state=True)
        more = call(J, method=method, passes=70, state=part.state)
        whole = call(J, method=method, passes=70)
        assert float(more) == pytest.approx(float(whole), rel=1e-10)
        assert more.interval() == pytest.approx(whole.interval(), rel=1e-6)
        assert float(more) != float(part)
        assert more.passes >= whole.passes  # Hutch++ runs its remainder anew
        if not method.startswith("hutch++"):
            assert (more.n_jvp, more.n_vjp) == (whole.n_jvp, whole.n_vjp)


@pytest.mark.parametrize("method", [*RESUMABLE, "auto"])
def test_a_tolerance_goes_on_from_what_was_spent(method):
    J = dense()
    rough = ntkest.trace(J, method=method, rtol=0.3, state=True)
    fine = ntkest.trace(J, method=method, rtol=0.08, state=rough.state)
    assert fine.converged
    assert fine.passes >= rough.passes
    again = ntkest.trace(J, method=method, rtol=0.3, state=fine.state)
    assert again.passes == fine.passes
    assert float(again) == float(fine)


def test_nothing_is_kept_unless_asked():
    assert ntkest.trace(dense(), method="reverse", passes=20).state is None


def test_an_exact_result_has_nothing_to_carry_on():
    J = ntkest.from_jacobian(np.eye(5))
    e = ntkest.trace(J, rtol=0.1, state=True)
    assert e.method == "exact"
    assert e.state is None
    assert float(ntkest.trace(J, state=e.state)) == 5


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"method": "exact"}, "done when it is done"),
        ({"method": "auto", "passes": 40}, "by the number of passes"),
    ],
)
def test_what_cannot_be_carried_on_says_so_before_it_starts(keywords, message):
    with pytest.raises(ntkest.NTKError, match=message):
        ntkest.trace(dense(), state=True, **keywords)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "forward"}, "method='reverse'"),
        ({"seed": 1}, "seed=0"),
        ({"centered": True}, "centered="),
        ({"by": "parameter"}, "by="),
        ({"J": dense()}, "another linearization"),
        ({"state": 3}, "takes True"),
    ],
)
def test_a_run_is_not_carried_on_as_another(change, message):
    J = dense()
    state = ntkest.trace(J, method="reverse", passes=20, state=True).state
    keywords = {"method": "reverse", "passes": 30, "state": state, **change}
    with pytest.raises(ntkest.NTKError, match=message):
        ntkest.trace(keywords.pop("J", J), **keywords)


def test_a_run_is_not_carried_on_for_other_quantities_or_targets():
    J = dense()
    y = np.ones(120)
    state = ntkest.alignment(J, y, method="reverse", passes=20, state=True).state
    with pytest.raises(ntkest.NTKError, match="other targets"):
        ntkest.alignment(J, y + np.arange(120), method="reverse", passes=30, state=state)
    with pytest.raises(ntkest.NTKError, match="other quantities"):
        ntkest.trace(J, method="reverse", passes=30, state=state)


def test_passes_of_a_pilot_that_was_lost_count_from_the_start_of_the_run():
    J = ntkest.from_jacobian(np.random.default_rng(0).standard_normal((500, 1500)) / 30)
    part = ntkest.trace(J, rtol=0.01, state=True)
    assert part.method == "reverse"
    assert part.state.lost == part.passes - part.state.samples > 0  # those of a sketch and of forward probes
    more = ntkest.trace(J, passes=part.passes + 100, state=part.state)
    assert more.passes == part.passes + 100
    again = ntkest.trace(J, passes=more.passes + 10, state=more.state)
    assert again.passes == more.passes + 10
    assert again.about["samples"] == part.about["samples"] + 110
    fewer = ntkest.trace(J, passes=20, state=again.state)
    assert fewer.passes == again.passes
