"""Leave-one-out and leave-two-out samples against loops that leave out, on explicit matrices."""

import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ntkest
from ntkest.estimators import XTRACE, XTRACE_POWER, Counted, Problem, leaveout, projected
from ntkest.estimators.leaveout import Factor, Sphere
from ntkest.tangents import group_parameters
from tests import oracle

N, P = 24, 30


def jacobians(spectrum, seed, scale=1.0):
    values = oracle.spectra(N)[spectrum]
    other = oracle.with_spectrum(oracle.spectra(N)["power-1"], N, seed + 1, P)
    return scale * oracle.with_spectrum(values, N, seed, P), other


def probes(m, seed):
    return np.random.default_rng(seed).standard_normal((N, m))


def alone(omega, i):
    """Probe i as it measures: resphered beside the others."""
    others = np.linalg.qr(np.delete(omega, i, 1))[0]
    rest = omega[:, i] - others @ (others.T @ omega[:, i])
    return rest / np.linalg.norm(rest) * np.sqrt(N - omega.shape[1] + 1)


def nystrom(A, omega):
    Z = A @ np.linalg.qr(A.T @ omega)[0]
    return Z @ Z.T


def nystrom_sample(A, B, omega, i):
    """Sample i of tr AAᵀ (B None) or of ⟨AAᵀ, BBᵀ⟩."""
    rest, w = np.delete(omega, i, 1), alone(omega, i)
    K, seen = A @ A.T, nystrom(A, rest)
    if B is None:
        return np.trace(seen) + w @ (K - seen) @ w
    L, other = B @ B.T, nystrom(B, rest)
    return np.sum(seen * other) + w @ (K @ L - seen @ other) @ w


def range_sample(A, B, Y, omega, i):
    """The same for a basis of the columns of Y but i."""
    Q, w = np.linalg.qr(np.delete(Y, i, 1))[0], omega[:, i]
    Pi, K = Q @ Q.T, A @ A.T
    rest = w - Pi @ w
    rest = rest / np.linalg.norm(rest) * np.sqrt(N - omega.shape[1] + 1)
    if B is None:
        return np.trace(Pi @ K @ Pi) + rest @ K @ rest
    L, off = B @ B.T, np.eye(N) - Pi
    known = 2 * np.sum((K @ Pi) * (L @ Pi)) - np.sum((Pi @ K @ Pi) * (Pi @ L @ Pi))
    return known + (off @ K @ rest) @ (off @ L @ rest)


def check(samples, naive, m):
    """`naive(kept probes, i)` for all samples, and for all pairs of a sample and a deleted probe."""
    single, double = samples
    everything = list(range(m))
    expected = np.array([naive(everything, i) for i in everything])
    np.testing.assert_allclose(single, expected, rtol=1e-10)
    for j in everything:
        kept = [i for i in everything if i != j]
        np.testing.assert_allclose(double[kept, j], [naive(kept, i) for i in range(m - 1)], rtol=1e-10)


@settings(deadline=None, max_examples=25)
@given(
    spectrum=st.sampled_from(["exponential", "power-1", "power-2", "step", "flat"]),
    m=st.integers(3, 9),
    seed=st.integers(0, 1000),
)
def test_nystrom_samples_are_those_of_a_loop(spectrum, m, seed):
    A, B = jacobians(spectrum, seed)
    omega = probes(m, seed + 7)
    sphere = Sphere(np.linalg.inv(omega.T @ omega), N)
    (Qa, Ra), (Qb, Rb) = np.linalg.qr(A.T @ omega), np.linalg.qr(B.T @ omega)
    Za, Zb, a, b = A @ Qa, B @ Qb, Factor.of(xp, Ra), Factor.of(xp, Rb)
    check(
        leaveout.trace_samples(xp, a, Za.T @ Za, sphere),
        lambda kept, i: nystrom_sample(A, None, omega[:, kept], i),
        m,
    )
    for left, right, X, B_ in ((a, b, Za.T @ Zb, B), (a, a, Za.T @ Za, A)):
        samples = leaveout.product_samples(xp, left, right, X, sphere)
        check(samples, lambda kept, i, B_=B_: nystrom_sample(A, B_, omega[:, kept], i), m)


@settings(deadline=None, max_examples=25)
@given(
    spectrum=st.sampled_from(["exponential", "power-1", "power-2", "step", "flat"]),
    m=st.integers(3, 9),
    seed=st.integers(0, 1000),
    shared=st.booleans(),
)
def test_range_samples_are_those_of_a_loop(spectrum, m, seed, shared):
    A, B = jacobians(spectrum, seed)
    K, L = A @ A.T, B @ B.T
    omega = probes(m, seed + 7)
    Y = (K + L) @ omega if shared else K @ omega
    Q, R = np.linalg.qr(Y)
    basis = projected.Range(Factor.of(xp, R).s, Q.T @ omega, np.sum(omega**2, 0), N)

    def action(K):
        return projected.Action(Q.T @ K @ Q, Q.T @ K @ omega, np.sum(omega * (K @ omega), 0))

    def pair(K, L):
        return projected.Pair(
            (K @ Q).T @ (L @ Q), (K @ omega).T @ L @ Q, (L @ omega).T @ K @ Q, np.sum((K @ omega) * (L @ omega), 0)
        )

    check(
        projected.trace_samples(xp, basis, action(K)),
        lambda kept, i: range_sample(A, None, Y[:, kept], omega[:, kept], i),
        m,
    )
    for L_, B_ in ((L, B), (K, A)):
        samples = projected.product_samples(xp, basis, action(K), action(L_), pair(K, L_))
        check(samples, lambda kept, i, B_=B_: range_sample(A, B_, Y[:, kept], omega[:, kept], i), m)


@pytest.mark.parametrize("spectrum", ["exponential", "power-1", "step", "flat"])
@pytest.mark.parametrize("estimator", [XTRACE, XTRACE_POWER], ids=lambda e: e.name)
def test_estimates_are_means_of_samples_with_the_range_of_a_power(estimator, spectrum):
    """Built up in two steps, for the trace, the squared norm and the product of two kernels, also of another scale."""
    A, B = jacobians(spectrum, 3)
    both = [ntkest.from_jacobian(A), ntkest.from_jacobian(B)]
    for kernels, needs in ((both[:1], {("trace", 0), ("square", 0)}), (both, {("cross", 0, 1)})):
        problem = Problem.of(
            tuple(map(Counted, kernels)), groups=group_parameters(both[0].param_names, None), needs=frozenset(needs)
        )
        state = estimator.extend(problem, None, estimator.draw(problem, 5, 0, 4))
        state = estimator.extend(problem, state, estimator.draw(problem, 5, 4, 9))
        found = {key: moment.value[0] for key, moment in estimator.moments(problem, state).items()}
        omega = np.asarray(state.probes).T
        images = [A @ A.T @ omega] if len(kernels) == 1 else [A @ A.T @ omega, B @ B.T @ omega]
        weights = [1 / np.linalg.norm(image[:, 0]) for image in images]
        applied = sum(w * K for w, K in zip(weights, [A @ A.T, B @ B.T], strict=False))
        Y = np.linalg.matrix_power(applied, estimator.power) @ omega
        for key, value in found.items():
            other = {"trace": None, "square": A, "cross": B}[key[0]]
            naive = [range_sample(A, other, Y, omega, i) for i in range(omega.shape[1])]
            assert value == pytest.approx(np.mean(naive), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_a_kernel_without_rank_left_gives_its_trace_whatever_is_left_out(scale):
    A = scale * oracle.with_spectrum(np.ones(5), N, 0, P)
    omega = probes(12, 0)
    Q, R = np.linalg.qr(A.T @ omega)
    Z = A @ Q
    sphere = Sphere(np.linalg.inv(omega.T @ omega), N)
    single, double = leaveout.trace_samples(xp, Factor.of(xp, R), Z.T @ Z, sphere)
    np.testing.assert_allclose(single, 5 * scale**2, rtol=1e-12)
    assert np.all(np.isfinite(double))


def test_a_kernel_of_zeros_has_finite_samples():
    zero, sphere = np.zeros((6, 6)), Sphere(np.eye(6), N)
    factor = Factor.of(xp, zero)
    for samples in (
        leaveout.trace_samples(xp, factor, zero, sphere),
        leaveout.product_samples(xp, factor, factor, zero, sphere),
    ):
        assert all(np.all(np.abs(part) < 1e-100) for part in samples)
