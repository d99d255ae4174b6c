"""Leave-one-out and leave-two-out samples in closed form, from small matrices only.

A sketch of m probes ω_1 … ω_m captures a kernel: G = JᵀΩ = QR and Z = JQ, so that without probe i the kernel is
approximated by K̂_i = Z P_i Zᵀ, P_i = I - s_i s_iᵀ, with s_i the normalised columns of R⁻ᵀ. Probe i, which K̂_i has not
seen, measures what K̂_i leaves; the average over i is unbiased. Here stand the m samples, and, for error bars, the m²
samples that leave out j as well: deleting probe j from the *whole* estimator, the sketch included. All cost O(m³)
operations on m×m matrices instead of O(m⁴), and no AD pass.

The law of the probes in R^n is invariant under rotations: what ω_i has in common with the others is projected away and
its length made good ("resphering", factor n - m + 1).

Reference: Epperly, Tropp, Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J.
Matrix Anal. Appl. 2024 (XNysTrace, XTrace). The products of kernels, the norms and all that leaves out two are new.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..linearization import Array, beside, eps

Samples = tuple[Array, Array]
"""T (m,): sample i; and T (m, m): row i, column j, sample i of the estimate without probe j (the diagonal is idle)."""


@dataclass(frozen=True)
class Sphere:
    """What is known of the probes: B = (ΩᵀΩ)⁻¹ (m, m) and the dimension n they live in."""

    inverse: Array
    dimension: int
    everything: bool = False
    """Whether the sketch has all of the space: then what is left without one probe is just what that one finds."""


@dataclass(frozen=True)
class Factor:
    """R of a sketch, and what follows from it."""

    r: Array
    """(m, m), upper triangular, no zero on the diagonal."""
    s: Array
    """(m, m): the unit vectors s_i, as columns."""
    d: Array
    """(m,): ‖R⁻ᵀe_i‖⁻¹, the length of the part of Jᵀω_i that the other images do not span."""
    c: Array
    """(m, m): SᵀS."""

    @staticmethod
    def of(xp: ModuleType, r: Array) -> Factor:
        """From R; where its diagonal vanishes relative to the largest, the kernel has run out of rank.

        There a rounding error is put in its place. It moves s_i into directions that J does not see, so that every
        formula returns the sketch's own value, which is exact then.
        """
        m = r.shape[0]
        unit = beside(xp, np.eye(m), r)
        most = xp.max(xp.abs(xp.linalg.diagonal(r)))
        relative = r / xp.where(most > 0, most, most * 0 + 1)
        size, least = xp.abs(xp.linalg.diagonal(relative)), eps(xp, r) * m
        relative = relative + unit * xp.where(size < least, size * 0 + least, size * 0)[None, :]
        inverse = xp.linalg.inv(relative)  # of a triangular matrix LU is back substitution: accurate row by row
        length = xp.sum(inverse * inverse, axis=1) ** 0.5
        s = (inverse / length[:, None]).T
        return Factor(relative * most, s, most / length, s.T @ s)


def trace_samples(xp: ModuleType, factor: Factor, w: Array, sphere: Sphere) -> Samples:
    """Of tr K, from W = ZᵀZ: τ_i = tr K̂_i + the residual's quadratic form at ω_i (XNysTrace)."""
    v, d = factor.s.T @ w @ factor.s, factor.d
    diagonal, total = xp.linalg.diagonal(v), xp.linalg.trace(w)
    one, two = _factors(xp, sphere)
    single = total + 0.0 * diagonal if sphere.everything else total - diagonal + one * d * d
    c, q = factor.c, _squared_sines(xp, factor.c)
    lost = (diagonal[:, None] + diagonal[None, :] - 2.0 * c * v) / q
    # of Jᵀω_i, orthogonal to all images but i's and j's, the part along both
    return single, total - lost + two * (d * d)[:, None] / q


def product_samples(xp: ModuleType, a: Factor, b: Factor, x: Array, sphere: Sphere) -> Samples:
    """Of ⟨K_a, K_b⟩, from X = Z_aᵀZ_b with shared probes: ⟨K̂_ai, K̂_bi⟩ + ω_iᵀ(K_aK_b - K̂_aiK̂_bi)ω_i."""
    v = a.s.T @ x @ b.s
    left, right = a.s.T @ x, x @ b.s
    e, f = left @ left.T, right.T @ right
    e1, f1, v1 = xp.linalg.diagonal(e), xp.linalg.diagonal(f), xp.linalg.diagonal(v)
    total = xp.sum(x * x)
    ya, yb = a.r @ sphere.inverse, b.r @ sphere.inverse  # columns R t_i, before scaling
    h1, h2 = left @ yb, ya.T @ right  # s_aᵀXρ_b and ρ_aᵀXs_b, before ρ's scale
    one, two = _factors(xp, sphere)
    scale = 1.0 / xp.linalg.diagonal(sphere.inverse)
    rest = a.d * xp.linalg.diagonal(h1) * scale + b.d * xp.linalg.diagonal(h2) * scale - a.d * b.d * v1
    single = total + 0.0 * v1 if sphere.everything else total - e1 - f1 + v1 * v1 + one * rest

    qa, qb = _squared_sines(xp, a.c), _squared_sines(xp, b.c)
    ra, rb = qa**0.5, qb**0.5
    vt = v.T
    lost_a = (e1[:, None] + e1[None, :] - 2.0 * a.c * e) / qa
    lost_b = (f1[:, None] + f1[None, :] - 2.0 * b.c * f) / qb
    x12 = (v - b.c * v1[:, None]) / rb
    x21 = (vt - a.c * v1[:, None]) / ra
    x22 = (v1[None, :] - b.c * vt - a.c * v + a.c * b.c * v1[:, None]) / (ra * rb)
    kept = total - lost_a - lost_b + (v1 * v1)[:, None] + x12 * x12 + x21 * x21 + x22 * x22
    # h_a = d_a (s_i - C s_j)/(1 - C²) and ρ = (y_i - β y_j)/B'
    beta, inner = _shares(xp, sphere)
    first = _between(xp, h1, a.c, beta, inner) * (a.d[:, None] / qa)
    second = _between(xp, h2.T, b.c, beta, inner) * (b.d[:, None] / qb)
    both = (v1[:, None] - a.c * vt - b.c * v + a.c * b.c * v1[None, :]) * (a.d * b.d)[:, None] / (qa * qb)
    return single, kept + two * (first + second - both)


def _between(xp: ModuleType, h: Array, c: Array, beta: Array, scale: Array) -> Array:
    """(s_i - C_ij s_j)ᵀ X (y_i - β_ij y_j) · scale_ij, from h_kl = s_kᵀXy_l."""
    own = xp.linalg.diagonal(h)
    return (own[:, None] - beta * h - c * (h.T - beta * own[None, :])) * scale


def _shares(xp: ModuleType, sphere: Sphere) -> Samples:
    """β_ij = B_ij/B_jj and 1/B' with B' = B_ii - B_ij²/B_jj, (m, m)."""
    own = xp.linalg.diagonal(sphere.inverse)
    beta = sphere.inverse / own[None, :]
    return beta, 1.0 / _without(xp, sphere.inverse, own)


def _factors(xp: ModuleType, sphere: Sphere) -> Samples:
    """(n - m + 1)B_ii (m,), and (n - m + 2)B'_ij (m, m) without j."""
    own = xp.linalg.diagonal(sphere.inverse)
    m = own.shape[0]
    one = (sphere.dimension - m + 1) * own
    return one, (sphere.dimension - m + 2) * _without(xp, sphere.inverse, own)


def _without(xp: ModuleType, b: Array, own: Array) -> Array:
    """B_ii of the inverse without probe j: B_ii - B_ij²/B_jj; B_ii itself on the idle diagonal."""
    unit = beside(xp, np.eye(own.shape[0]), own)
    return own[:, None] - (1.0 - unit) * b * b / own[None, :]


def _squared_sines(xp: ModuleType, c: Array) -> Array:
    """1 - C_ij², kept from rounding to nothing where s_i and s_j are parallel; 1 on the idle diagonal."""
    unit = beside(xp, np.eye(c.shape[0]), c)
    q = 1.0 - (1.0 - unit) * c * c
    least = eps(xp, c) ** 0.75
    return xp.where(q > least, q, q * 0 + least)
