"""Intervals by their definitions, and what an estimate says of itself."""

import json
import math

import numpy as np
import pytest
import scipy.stats

import ntkest
from ntkest.estimate import AtMost, Estimate, Exactly, ScaledChiSquare, StudentT
from tests import oracle


def estimate(law, value=2.0, std_error=0.1, **rest):
    values = {"quantity": "trace", "passes": 5, "n_jvp": 2, "n_vjp": 3, "method": "reverse"}
    return Estimate(value=np.asarray(value), std_error=np.asarray(std_error), law=law, **{**values, **rest})


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_student_intervals_are_those_of_scipy(level):
    t = scipy.stats.t.ppf(0.5 + level / 2, 11)
    plain = estimate(StudentT(11, np.asarray(0.05), np.asarray(False)))
    assert plain.interval(level) == pytest.approx((2 - 0.1 * t, 2 + 0.1 * t))
    logarithmic = estimate(StudentT(11, np.asarray(0.05), np.asarray(True)))
    assert logarithmic.interval(level) == pytest.approx((2 * math.exp(-0.05 * t), 2 * math.exp(0.05 * t)))


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("share", "power"), [(0.0, 1.0), (0.7, 1.0), (0.2, 0.5), (0.2, -0.5)])
def test_chi_square_intervals_are_those_of_scipy(level, share, power):
    nu = 9.5
    upper, lower = scipy.stats.chi2.ppf([0.5 + level / 2, 0.5 - level / 2], nu)
    ends = sorted(2 * (share + (1 - share) * nu / quantile) ** power for quantile in (upper, lower))
    found = estimate(ScaledChiSquare(np.asarray(share), np.asarray(nu), power)).interval(level)
    assert found == pytest.approx(tuple(ends), rel=1e-10)


def test_exact_intervals_are_the_rounding_floor():
    e = estimate(Exactly(), about={"floor": 1e-7})
    low, high = e.interval(0.95)
    assert (low + high) / 2 == pytest.approx(2.0, rel=1e-15)
    assert high - 2.0 == pytest.approx(1.959964 * 1e-7 * 2.0, rel=1e-5)


def bounded(centre, log_error):
    """An estimate of something that is at most 1, and its law before it was brought back to that."""
    law = StudentT(11, np.asarray(log_error), np.asarray(True))
    value = estimate(AtMost(law, np.asarray(centre), 1.0), value=min(centre, 1.0), std_error=centre * log_error)
    return value, estimate(law, value=centre, std_error=centre * log_error)


@pytest.mark.parametrize(("centre", "log_error"), [(0.5, 0.1), (0.95, 0.1), (1.05, 0.1)])
def test_an_interval_below_a_largest_value_is_that_of_the_estimate_as_it_was(centre, log_error):
    e, free = bounded(centre, log_error)
    assert e.interval() == pytest.approx((free.interval()[0], min(free.interval()[1], 1.0)))


def test_an_estimate_far_beyond_the_largest_value_keeps_an_interval():
    e, free = bounded(1.5, 0.1)
    assert free.interval()[0] > 1
    assert e.interval() == pytest.approx((1 - 0.15, 1.0))
    assert e.half_width == pytest.approx(0.15)  # nothing of it is above
    assert not e.converged


@pytest.mark.parametrize("level", [0, 1, -0.5, 95])
def test_levels_outside_0_and_1_are_refused(level):
    with pytest.raises(ntkest.NTKError, match="between 0 and 1"):
        estimate(Exactly()).interval(level)


def test_the_chi_square_law_is_what_a_weighted_chi_square_needs():
    """Coverage over 1000 draws of means of ωᵀKω, where Student's t covers too little."""
    A = oracle.with_spectrum(1.0 / np.arange(1, 40) ** 2, M=60)
    J, true = ntkest.from_jacobian(A), oracle.trace(oracle.kernel(A))
    hits = sum(
        low <= true <= high
        for low, high in (
            ntkest.trace(J, method="reverse", passes=16, seed=seed).interval(0.95) for seed in range(1000)
        )
    )
    assert 0.93 <= hits / 1000 <= 0.985


def test_an_estimate_prints_converts_and_serialises():
    A = np.random.default_rng(0).standard_normal((30, 50))
    J = ntkest.from_jacobian({"a.w": A, "b.w": A[:, :7]})
    e = ntkest.effective_rank(J, method="reverse", passes=20, seed=3, by="layer")
    assert float(e) == float(e.value)
    assert str(e).startswith("effective_rank ")
    assert "20 passes" in str(e)
    plain = json.loads(json.dumps(e.to_dict(), allow_nan=False))
    assert plain["value"] == float(e)
    assert plain["interval_95"] == list(e.interval(0.95))
    assert plain["seed"] == 3
    assert plain["samples"] == 20
    assert plain["method"] == "reverse"
    assert plain["dtype"] == "float64"
    assert plain["versions"]["ntkest"] == ntkest.__version__
    assert set(plain["parts"]) == {"a", "b"}
    assert plain["parts"]["b"]["value"] == float(e.parts["b"])


def test_plots_draw_every_part_with_its_interval():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    A = np.random.default_rng(0).standard_normal((30, 50))
    J = ntkest.from_jacobian({"a.w": A, "b.w": A[:, :7]})
    ax = ntkest.trace(J, passes=20, by="layer").plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["trace", "a", "b"]
    axes = ntkest.summary(J, passes=20, by="layer").plot()
    assert [a.get_xlabel() for a in axes] == ["trace", "frobenius_norm", "effective_rank"]
    matplotlib.pyplot.close("all")


def test_a_summary_is_a_table_of_what_single_calls_give_from_the_same_probes():
    A = np.random.default_rng(0).standard_normal((30, 50))
    labels = np.arange(10) % 3
    J = ntkest.from_jacobian(A, (10, 3))
    s = ntkest.summary(J, labels, passes=25, method="reverse", seed=1)
    assert list(s) == ["trace", "frobenius_norm", "effective_rank", "alignment"]
    assert s.passes == 25
    singles = [
        ntkest.trace(J, passes=24, method="reverse", seed=1),
        ntkest.frobenius_norm(J, passes=24, method="reverse", seed=1),
        ntkest.effective_rank(J, passes=24, method="reverse", seed=1),
        ntkest.alignment(J, labels, passes=25, method="reverse", seed=1),
    ]
    for found, alone in zip(s.values(), singles, strict=True):
        assert float(found) == pytest.approx(float(alone), rel=1e-12)
        assert found.interval() == pytest.approx(alone.interval(), rel=1e-9)
    assert sum(e.passes for e in singles) > 3 * s.passes
    text = str(s)
    assert "30 outputs, 50 parameters" in text
    assert all(title in text for title in ("trace", "Frobenius norm", "effective rank", "alignment with targets"))
    assert json.loads(json.dumps(s.to_dict(), allow_nan=False))["passes"] == 25
    assert max(map(len, text.splitlines())) <= 80
