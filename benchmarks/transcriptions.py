"""XNysTrace and XTrace for the trace in a dozen lines of NumPy each, as somebody would write them from the paper.

Epperly, Tropp, Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J. Matrix Anal.
Appl. 2024, sections 2.1 and 2.3, with K = A Aᵀ applied by A and Aᵀ. No error bars beyond the spread of samples, no
chunks, no care for rank or scale: what is timed is the same arithmetic without a library around it.
"""

from __future__ import annotations

import numpy as np


def xnystrace(A: np.ndarray, m: int, seed: int) -> tuple[float, float]:
    """Mean of the samples and its standard error, from 2m passes."""
    n = len(A)
    omega = np.random.default_rng(seed).standard_normal((n, m))
    q, r = np.linalg.qr(A.T @ omega)
    z = A @ q
    inverse = np.linalg.inv(r)
    lengths = 1 / np.sum(inverse**2, axis=1)
    s = inverse.T * np.sqrt(lengths)
    spread = np.diag(np.linalg.inv(omega.T @ omega))
    samples = np.sum(z**2) - np.sum((z @ s) ** 2, axis=0) + (n - m + 1) * spread * lengths
    return float(samples.mean()), float(samples.std(ddof=1) / m**0.5)


def xtrace(A: np.ndarray, m: int, seed: int) -> tuple[float, float]:
    """Mean of the samples and its standard error, from 3m passes."""
    n = len(A)
    omega = np.random.default_rng(seed).standard_normal((n, m))
    y = A @ (A.T @ omega)
    q, r = np.linalg.qr(y)
    left = A.T @ q
    h, w = left.T @ left, q.T @ omega
    s = np.linalg.inv(r).T
    s /= np.linalg.norm(s, axis=0)
    x = w - s * np.sum(s * w, axis=0)
    scale = (n - m + 1) / (np.sum(omega**2, axis=0) - np.sum(x**2, axis=0))
    rest = np.sum(omega * y, axis=0) - 2 * np.sum(r * x, axis=0) + np.sum(x * (h @ x), axis=0)
    samples = np.trace(h) - np.sum(s * (h @ s), axis=0) + scale * rest
    return float(samples.mean()), float(samples.std(ddof=1) / m**0.5)


TRANSCRIPTIONS = {"xnystrace": (xnystrace, 2), "xtrace": (xtrace, 3)}
"""By method: the function, and its passes a sample."""
