"""Quantities of explicit kernels by their definitions, in float64, one line each."""

import numpy as np


def centring(shape, centered):
    """H as a matrix on vec(outputs)."""
    M = int(np.prod(shape))
    if centered is False:
        return np.eye(M)
    if centered is True:
        return np.eye(M) - np.full((M, M), 1 / M)
    N, D = shape[0], M // shape[0]  # "examples", on axis 0
    return np.kron(np.eye(N) - np.full((N, N), 1 / N), np.eye(D))


def kernel(A, H=None):
    """H A Aᵀ H."""
    A = np.asarray(A, dtype=np.float64)
    A = A if H is None else H @ A
    return A @ A.T


def trace(K):
    return np.trace(K)


def frobenius_norm(K):
    return np.sqrt((K * K).sum())


def effective_rank(K):
    return np.trace(K) ** 2 / (K * K).sum()


def alignment(K, L):
    return (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())


def target_alignment(K, y, H=None):
    y = np.asarray(y, dtype=np.float64).ravel()
    y = y if H is None else H @ y
    return y @ K @ y / ((y @ y) * np.sqrt((K * K).sum()))


def with_spectrum(values, M, seed=0, P=None):
    """A Jacobian (M, P) whose kernel has the given eigenvalues, with random singular vectors."""
    draw = np.random.default_rng(seed)
    values = np.asarray(values, dtype=np.float64)
    left = np.linalg.qr(draw.standard_normal((M, len(values))))[0]
    right = np.linalg.qr(draw.standard_normal((P or M, len(values))))[0]
    return (left * np.sqrt(values)) @ right.T


def spectra(n):
    """Eigenvalues that estimators find easy and hard."""
    j = np.arange(1, n + 1)
    return {
        "exponential": 0.8**j,
        "power-1": 1.0 / j,
        "power-2": 1.0 / j**2,
        "step": np.where(j <= 5, 1.0, 0.01),
        "flat": np.linspace(3, 1, n),
        "rank-5": np.ones(5),
    }
