"""Traces of functions, ranks, condition numbers and densities against all eigenvalues of explicit kernels."""

import json

import array_api_strict
import numpy as np
import pytest

import ntkest
from ntkest.spectrum.quadrature import LockStep, gauss, radau, scaled
from ntkest.spectrum.sides import Operator
from tests import oracle
from tests.test_spectrum_eigenvalues import Counting

M = 120
WIDE, TALL = 180, 70
RIDGE = 1e-2


def eigenvalues(A, H=None):
    """All M of them, without the rounding errors of zeros."""
    values = np.linalg.eigvalsh(oracle.kernel(A, H))
    return np.where(values > 1e-13 * values.max(initial=0), values, 0)


def entropic(values):
    p = values[values > 0] / values.sum()
    return np.exp(-(p * np.log(p)).sum())


QUANTITIES = {
    "logdet": (lambda J, **k: ntkest.logdet(J, RIDGE, **k), lambda v: np.log(v + RIDGE).sum()),
    "root": (lambda J, **k: ntkest.trace_function(J, np.sqrt, **k), lambda v: np.sqrt(v).sum()),
    "degrees": (
        lambda J, **k: ntkest.trace_function(J, lambda x: x / (x + RIDGE), **k),
        lambda v: (v / (v + RIDGE)).sum(),
    ),
    "at zero": (lambda J, **k: ntkest.trace_function(J, lambda x: np.exp(-x), **k), lambda v: np.exp(-v).sum()),
    "entropic rank": (ntkest.entropic_rank, entropic),
}


@pytest.mark.parametrize("centered", [False, True, "examples"])
@pytest.mark.parametrize("P", [WIDE, TALL])
@pytest.mark.parametrize("name", QUANTITIES)
def test_exact_is_exact(name, P, centered):
    call, truth = QUANTITIES[name]
    A = oracle.with_spectrum(0.8 ** np.arange(60), M, P=P) + 0.1
    J = Counting(A, shape=(30, 4))
    found = call(J, method="exact", centered=centered)
    assert float(found) == pytest.approx(truth(eigenvalues(A, oracle.centring((30, 4), centered))), rel=1e-9)
    assert found.passes == J.n_jvp + J.n_vjp == min(M, P)
    assert found.method == "exact"
    assert float(found.std_error) < 1e-6 * abs(float(found))


@pytest.mark.parametrize("centered", [False, True, "examples"])
@pytest.mark.parametrize("P", [WIDE, TALL])
@pytest.mark.parametrize("name", QUANTITIES)
def test_quadrature_is_unbiased_and_its_error_bars_are_right(name, P, centered):
    """The mean of many seeds within 4.5 standard errors, their spread within 2 of the bars, and intervals cover."""
    call, truth = QUANTITIES[name]
    A = oracle.with_spectrum(0.9 ** np.arange(60), M, P=P) + 0.02
    J, wanted = Counting(A, shape=(30, 4)), truth(eigenvalues(A, oracle.centring((30, 4), centered)))
    found = [call(J, method="quadrature", centered=centered, passes=680, steps=20, seed=s) for s in range(40)]
    assert J.n_jvp + J.n_vjp == sum(e.passes for e in found)
    values, errors = np.array([float(e) for e in found]), np.array([float(e.std_error) for e in found])
    spread = values.std(ddof=1)
    bias = 0.01 * wanted if name == "entropic rank" else 0.0  # a ratio
    assert abs(values.mean() - wanted) < 4.5 * spread / np.sqrt(40) + bias + float(errors.min())
    assert 0.5 < spread / errors.mean() < 2
    assert np.mean([low <= wanted <= high for low, high in (e.interval() for e in found)]) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("passes", [200, 600])
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", oracle.spectra(M))
def test_coverage_over_seeds(name, quantity, passes):
    call, truth = QUANTITIES[quantity]
    A = oracle.with_spectrum(oracle.spectra(M)[name], M, P=WIDE)
    J, wanted = ntkest.from_jacobian(A), truth(eigenvalues(A))
    found = [call(J, method="quadrature", passes=passes, seed=s) for s in range(200)]
    cover = np.mean([low <= wanted <= high for low, high in (e.interval() for e in found)])
    assert cover >= 0.87, cover


@pytest.mark.parametrize("name", ["logdet", "root", "degrees"])
def test_the_two_rules_bracket_the_integral(name):
    f = {"logdet": lambda x: np.log1p(x / RIDGE), "root": np.sqrt, "degrees": lambda x: x / (x + RIDGE)}[name]
    A = oracle.with_spectrum(1 / np.arange(1, 61) ** 2, 60)
    operator = Operator.of(ntkest.from_jacobian(A))
    (omega,) = operator.signs("outputs", 0, 0, 6)
    values, U = np.linalg.eigh(oracle.kernel(A))
    wanted = ((omega @ U) ** 2) @ f(values)
    runs = LockStep(operator, (omega,))
    for _ in range(9):
        runs.advance()
        rules = (rule(*runs.coefficients(), runs.masses) for rule in (gauss, radau))
        upper, lower = (scaled(rule, operator.scale).integrals(f) for rule in rules)
        assert (lower <= wanted + 1e-9).all()
        assert (wanted <= upper + 1e-9).all()


def test_quadrature_is_exact_for_polynomials():
    A = np.random.default_rng(0).standard_normal((20, 30)) / 5
    operator = Operator.of(ntkest.from_jacobian(A))
    (omega,) = operator.signs("outputs", 0, 0, 3)
    runs, K = LockStep(operator, (omega,)), oracle.kernel(A)
    for _ in range(3):
        runs.advance()
    for rule, degree in ((gauss, 5), (radau, 6)):
        nodes = scaled(rule(*runs.coefficients(), runs.masses), operator.scale)
        for p in range(degree + 1):
            wanted = np.einsum("ki,ij,kj->k", omega, np.linalg.matrix_power(K, p), omega)
            np.testing.assert_allclose(nodes.integrals(lambda x, p=p: x**p), wanted, rtol=1e-10)


@pytest.mark.parametrize("name", ["rank-5", "equal", "zero"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_runs_whose_space_is_exhausted_stand_still(name, dtype):
    """With more steps than the rank, nodes stay and nothing is NaN; f(0) is not asked for where it has no weight."""
    spectrum = {"rank-5": np.arange(5, 0, -1.0), "equal": np.ones(40), "zero": np.zeros(1)}[name]
    A = oracle.with_spectrum(spectrum, 40).astype(dtype)
    J = ntkest.from_jacobian(A)
    found = ntkest.trace_function(J, np.sqrt, method="quadrature", passes=800, steps=20)
    wanted = np.sqrt(spectrum).sum()
    assert abs(float(found) - wanted) <= 4 * float(found.std_error) + 1e-12
    if name == "equal":
        assert float(ntkest.trace_function(J, np.log, method="quadrature", passes=800, steps=20)) == pytest.approx(
            0, abs=1e-4 if dtype == np.float32 else 1e-12
        )


def test_f_that_is_infinite_at_zero_is_refused_where_k_is_singular():
    for method in ("exact", "quadrature"):
        for A in (oracle.with_spectrum(np.ones(5), 40), np.random.default_rng(0).standard_normal((40, 10))):
            with pytest.raises(ntkest.NTKError, match=r"not finite.*ridge"):
                ntkest.trace_function(ntkest.from_jacobian(A), np.log, method=method)


def test_log_of_a_regular_kernel_needs_no_ridge():
    A = oracle.with_spectrum(np.linspace(1, 3, 60), 60, P=80)
    found = ntkest.trace_function(ntkest.from_jacobian(A), np.log, method="quadrature", passes=2000)
    wanted = np.log(np.linspace(1, 3, 60)).sum()
    assert found.interval(0.999)[0] <= wanted <= found.interval(0.999)[1]


@pytest.mark.parametrize("P", [400, 200])
@pytest.mark.parametrize("name", ["logdet", "degrees", "entropic rank"])
def test_a_tolerance_is_met(name, P):
    call, truth = QUANTITIES[name]
    A = oracle.with_spectrum(1 / np.arange(1, 201), 300, P=P)
    J, wanted = Counting(A), truth(eigenvalues(A))
    for seed in range(5):
        J.n_jvp = J.n_vjp = 0
        found = call(J, rtol=0.1, seed=seed, max_passes=20000)
        assert found.converged
        assert found.passes == J.n_jvp + J.n_vjp
        assert abs(float(found) / wanted - 1) < 0.15
        assert found.half_width <= 0.1 * abs(float(found))


def test_too_small_a_budget_is_said_by_converged():
    A = oracle.with_spectrum(0.8 ** np.arange(400), 400)
    found = ntkest.entropic_rank(ntkest.from_jacobian(A), rtol=1e-3, max_passes=300)
    assert not found.converged
    assert found.passes <= 300


def test_all_of_j_is_taken_where_the_tolerance_would_cost_more():
    A = oracle.with_spectrum(0.8 ** np.arange(400), 400)
    found = ntkest.entropic_rank(ntkest.from_jacobian(A), rtol=1e-9)
    assert found.method == "exact"
    assert found.passes < 1000  # with a pilot that found out
    assert "tolerance" in found.why
    assert float(found) == pytest.approx(entropic(0.8 ** np.arange(400)), rel=1e-9)


def test_leading_eigenvectors_are_taken_out_where_they_make_the_noise():
    """On five equal eigenvalues plain quadrature needs thousands of passes; without them there is nothing to sample."""
    J = Counting(oracle.with_spectrum(np.ones(5), 400))
    for call, wanted in ((QUANTITIES["root"][0], 5), (QUANTITIES["degrees"][0], 5 / (1 + RIDGE))):
        J.n_jvp = J.n_vjp = 0
        found = call(J, method="quadrature", rtol=0.01)
        assert found.about["deflated"] == 5
        assert found.converged
        assert found.passes == J.n_jvp + J.n_vjp < 400
        assert float(found) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("P", [600, 300])
@pytest.mark.parametrize("name", ["root", "degrees", "entropic rank"])
def test_deflated_estimates_are_unbiased_and_their_error_bars_are_right(name, P):
    call, truth = QUANTITIES[name]
    A = oracle.with_spectrum(1 / np.arange(1, 201) ** 2, 400, P=P)
    J, wanted = ntkest.from_jacobian(A), truth(eigenvalues(A))
    found = [call(J, method="quadrature", rtol=0.04, seed=seed, max_passes=4000) for seed in range(20)]
    assert all(e.about["deflated"] > 0 for e in found)
    values, errors = np.array([float(e) for e in found]), np.array([float(e.std_error) for e in found])
    spread = values.std(ddof=1)
    assert abs(values.mean() - wanted) < 4.5 * spread / np.sqrt(20) + 0.005 * wanted  # of what 3 % residuals leave
    assert np.sqrt(np.mean((values - wanted) ** 2)) < 2 * errors.mean()
    assert np.mean([low <= wanted <= high for low, high in (e.interval() for e in found)]) >= 0.8


def test_nothing_is_taken_out_where_small_eigenvalues_make_the_noise():
    J = ntkest.from_jacobian(oracle.with_spectrum(np.linspace(1, 3, 400), 400))
    found = ntkest.trace_function(J, lambda x: np.exp(-x), method="quadrature", rtol=0.002)
    assert found.about["deflated"] == 0


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_ranks_do_not_depend_on_scale_even_in_float32(scale):
    A = oracle.with_spectrum(0.8 ** np.arange(60), M).astype(np.float32)
    for method in ("exact", "quadrature"):
        one, other = (ntkest.entropic_rank(ntkest.from_jacobian(a), method=method) for a in (A, A * np.float32(scale)))
        assert float(other) == pytest.approx(float(one), rel=1e-3)
    one, other = (ntkest.stable_rank(ntkest.from_jacobian(a)) for a in (A, A * np.float32(scale)))
    assert float(other) == pytest.approx(float(one), rel=1e-3)
    one, other = (ntkest.condition_number(ntkest.from_jacobian(a[:40])) for a in (A, A * np.float32(scale)))
    assert float(other) == pytest.approx(float(one), rel=1e-2)


def test_a_zero_kernel():
    J = ntkest.from_jacobian(np.zeros((20, 30)))
    for method in ("exact", "quadrature"):
        assert float(ntkest.logdet(J, 0.5, method=method)) == pytest.approx(20 * np.log(0.5))
        with pytest.raises(ntkest.NTKError, match="zero"):
            ntkest.entropic_rank(J, method=method)
        with pytest.raises(ntkest.NTKError, match="zero"):
            ntkest.spectral_density(J, method=method)
    with pytest.raises(ntkest.NTKError, match="zero"):
        ntkest.stable_rank(J)
    with pytest.raises(ntkest.NTKError, match="zero"):
        ntkest.condition_number(J)
    assert float(ntkest.condition_number(J, 0.1)) == pytest.approx(1)


@pytest.mark.parametrize("P", [WIDE, TALL])
@pytest.mark.parametrize("name", oracle.spectra(TALL))
def test_stable_rank(name, P):
    values = oracle.spectra(TALL)[name]
    J = Counting(oracle.with_spectrum(values, M, P=P))
    found = ntkest.stable_rank(J, rtol=0.03)
    wanted = values.sum() / values.max()
    assert found.passes == J.n_jvp + J.n_vjp
    assert found.interval(0.999)[0] <= wanted <= found.interval(0.999)[1]
    assert float(found) == pytest.approx(wanted, rel=0.06)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_condition_number(method, ridge):
    values = np.linspace(3, 0.01, 50)
    J = Counting(oracle.with_spectrum(values, 50, P=90))
    found = ntkest.condition_number(J, ridge, method=method, rtol=1e-3)
    assert float(found) == pytest.approx((3 + ridge) / (0.01 + ridge), rel=1e-3)
    assert found.converged
    assert found.passes == J.n_jvp + J.n_vjp


def test_a_condition_number_far_beyond_what_a_gram_matrix_in_float32_can_tell():
    values = np.logspace(0, -9, 40)
    J = ntkest.from_jacobian(oracle.with_spectrum(values, 40, P=90).astype(np.float32))
    found = ntkest.condition_number(J)
    assert found.interval()[0] <= 1e9 <= found.interval()[1]
    assert float(found) == pytest.approx(1e9, rel=0.1)


def test_a_ridge_above_the_tail_settles_the_condition_number_early():
    values = 0.7 ** np.arange(200)
    J = ntkest.from_jacobian(oracle.with_spectrum(values, 400))
    found = ntkest.condition_number(J, 1e-4, method="krylov")
    assert float(found) == pytest.approx(1e4 + 1, rel=0.03)
    assert found.passes < 300


def test_singular_kernels_have_no_condition_number_without_a_ridge():
    tall, low = np.random.default_rng(0).standard_normal((40, 10)), oracle.with_spectrum(np.ones(5), 20)
    for A in (tall, low):
        for method in ("exact", "krylov"):
            with pytest.raises(ntkest.NTKError, match="singular"):
                ntkest.condition_number(ntkest.from_jacobian(A), method=method)
            found = ntkest.condition_number(ntkest.from_jacobian(A), 0.1, method=method)
            top = np.linalg.norm(A, 2) ** 2
            assert float(found) == pytest.approx((top + 0.1) / 0.1, rel=0.02)


# Density --------------------------------------------------------------------------------------------------------------


def smoothed(values, grid, width, log):
    """The definition."""
    places, at = (np.log10(values[values > 0]), np.log10(grid)) if log else (values, grid)
    z = (at[:, None] - places[None, :]) / width
    return np.exp(-z * z / 2).sum(axis=1) / (width * np.sqrt(2 * np.pi) * len(values))


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("P", [WIDE, TALL])
def test_the_density_of_all_eigenvalues_is_its_definition(P, scale):
    A = oracle.with_spectrum(np.logspace(0, -3, 60), M, P=P)
    found = ntkest.spectral_density(ntkest.from_jacobian(A), scale=scale)
    assert found.method == "exact"
    wanted = smoothed(eigenvalues(A), found.grid, found.width, scale == "log")
    np.testing.assert_allclose(found.density, wanted, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.std_error, 0)
    assert found.zeros == pytest.approx(0.5)
    np.testing.assert_allclose(found.moments, [np.mean(eigenvalues(A) ** p) for p in range(1, 5)])
    assert found.cumulative[-1] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("P", [400, 150])
def test_the_sampled_density_is_within_its_error_bars(P, scale):
    values = np.logspace(0, -2, 150)
    A = oracle.with_spectrum(values, 300, P=P)
    J, all_values = Counting(A), eigenvalues(A)
    misses = []
    for seed in range(10):
        J.n_jvp = J.n_vjp = 0
        found = ntkest.spectral_density(J, scale=scale, method="quadrature", passes=600, seed=seed)
        assert found.passes == J.n_jvp + J.n_vjp <= 600
        wanted = smoothed(all_values, found.grid, found.width, scale == "log")
        high = wanted > 0.05 * wanted.max()
        misses.append(np.abs(found.density - wanted)[high] > 3 * found.std_error[high])
        assert abs(found.zeros - 0.5) < 5 * found.zeros_error + 1e-12
        wanted = [np.mean(all_values**p) for p in range(1, 5)]
        assert (np.abs(found.moments - wanted) < 5 * found.moment_errors).all()
        assert (np.diff(found.cumulative) > -1e-12).all()
    assert np.mean(np.concatenate(misses)) < 0.1


def test_a_density_on_a_grid_of_ones_own_and_to_json():
    J = ntkest.from_jacobian(oracle.with_spectrum(np.linspace(1, 2, 40), 40))
    grid = np.linspace(0.5, 2.5, 11)
    found = ntkest.spectral_density(J, grid=grid, scale="linear", width=0.1)
    np.testing.assert_array_equal(found.grid, grid)
    assert json.loads(json.dumps(found.to_dict()))["density"] == found.density.tolist()


# Everywhere -----------------------------------------------------------------------------------------------------------


def test_array_api_strict_agrees():
    A = oracle.with_spectrum(1 / np.arange(1, 61), 60, P=90)
    blocks = {"a": A[:, :40], "b": A[:, 40:]}
    for call, _ in (*QUANTITIES.values(), (ntkest.stable_rank, None)):
        one = call(ntkest.from_jacobian(blocks), max_passes=300)
        strict = call(ntkest.from_jacobian({n: array_api_strict.asarray(b) for n, b in blocks.items()}), max_passes=300)
        assert float(strict) == pytest.approx(float(one), rel=1e-9)
        assert strict.passes == one.passes
        assert strict.value.__array_namespace__() is array_api_strict


def small(rows=4):
    return ntkest.from_jacobian(np.random.default_rng(0).standard_normal((rows, 50)))


V, T = ValueError, TypeError
BAD = {
    "f no function": (T, "f takes a function", lambda: ntkest.trace_function(small(), 3)),
    "f to a scalar": (V, "as many real numbers", lambda: ntkest.trace_function(small(), np.sum)),
    "f to complex": (V, "complex", lambda: ntkest.trace_function(small(), lambda x: x + 0j)),
    "ridge zero": (V, "ridge=", lambda: ntkest.logdet(small(), 0.0)),
    "ridge negative": (V, "ridge=", lambda: ntkest.condition_number(small(), -1.0)),
    "ridge of text": (T, "ridge=", lambda: ntkest.logdet(small(), "1e-3")),
    "unknown method": (V, "method=", lambda: ntkest.logdet(small(), 1.0, method="lanczos")),
    "unknown method of a ratio": (V, "method=", lambda: ntkest.condition_number(small(), method="lanczos")),
    "unknown method of a density": (V, "method=", lambda: ntkest.spectral_density(small(), method="kpm")),
    "steps one": (V, "steps=", lambda: ntkest.logdet(small(), 1.0, steps=1)),
    "steps of a float": (T, "steps=", lambda: ntkest.logdet(small(), 1.0, steps=5.0)),
    "passes too few": (
        V,
        "passes=7 is too few",
        lambda: ntkest.logdet(small(40), 1.0, passes=7, method="quadrature"),
    ),
    "max_passes too few": (
        V,
        "max_passes=7 is too few",
        lambda: ntkest.logdet(small(40), 1.0, max_passes=7, method="quadrature"),
    ),
    "memory too small": (V, "memory=", lambda: ntkest.logdet(small(40), 1.0, memory=1000, method="quadrature")),
    "scale of decibels": (V, "scale=", lambda: ntkest.spectral_density(small(), scale="dB")),
    "width zero": (V, "width=", lambda: ntkest.spectral_density(small(), width=0.0)),
    "width of text": (T, "width=", lambda: ntkest.spectral_density(small(), width="narrow")),
    "points one": (V, "points=", lambda: ntkest.spectral_density(small(), points=1)),
    "grid of zeros": (V, "grid=", lambda: ntkest.spectral_density(small(), grid=[0.0, 1.0])),
    "grid of text": (T, "grid=", lambda: ntkest.spectral_density(small(), grid="fine")),
    "grid of two axes": (V, "grid=", lambda: ntkest.spectral_density(small(), grid=[[1.0]])),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_what_to_do(case):
    kind, message, call = BAD[case]
    with pytest.raises(ntkest.NTKError, match=message) as error:
        call()
    assert isinstance(error.value, kind)


@pytest.mark.parametrize("modes", [["vjp"], ["jvp"]])
def test_one_mode_is_enough_where_all_of_j_can_be_had(modes):
    A = oracle.with_spectrum(0.8 ** np.arange(50), M, P=WIDE)
    found = ntkest.logdet(Counting(A, modes), RIDGE)
    assert found.method == "exact"
    assert float(found) == pytest.approx(np.log(eigenvalues(A) + RIDGE).sum(), rel=1e-9)
    with pytest.raises(ntkest.NTKError, match="needs jvp and vjp"):
        ntkest.logdet(Counting(A, modes), RIDGE, method="quadrature")
