"""Leave-one-out and leave-two-out samples in closed form, for a basis of the range of K (XTrace).

Y = KΩ, Q = orth(Y) and s_i the unit vector that the images of all probes but i leave out of the range of Q. Without
probe i the projector is Π_i = Q P_i Qᵀ, P_i = I - s_i s_iᵀ, and ω_i, projected off it and resphered, measures the rest:

* tr K = tr Π_iK + ω̃ᵀKω̃;
* ⟨K, L⟩ = 2⟨KΠ_i, LΠ_i⟩ - ⟨Π_iKΠ_i, Π_iLΠ_i⟩ + ⟨(I - Π_i)Kω̃, (I - Π_i)Lω̃⟩, where the last term alone is random.

Leaving out j as well takes s_j away too. All sums run over m×m matrices: x_ij = P_ij Qᵀω_i is a combination of w_i, s_i
and s_j, so that each of its quadratic forms is one of their products, and O(m³) operations do for all m² samples.

Reference: Epperly, Tropp, Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J.
Matrix Anal. Appl. 2024, section 2.2 and the appendix on resphering. Products and what leaves out two are new.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..linearization import Array, beside, eps
from .leaveout import Samples


@dataclass(frozen=True)
class Action:
    """What is known of one kernel."""

    h: Array
    """QᵀKQ (m, m), symmetric."""
    g: Array
    """QᵀKΩ (m, m)."""
    energy: Array
    """ω_iᵀKω_i (m,)."""


@dataclass(frozen=True)
class Pair:
    """What is known of the images of two kernels K and L."""

    zz: Array
    """(KQ)ᵀ(LQ) (m, m)."""
    yz: Array
    """(KΩ)ᵀ(LQ) (m, m)."""
    zy: Array
    """(LΩ)ᵀ(KQ) (m, m)."""
    energy: Array
    """⟨Kω_i, Lω_i⟩ (m,)."""


@dataclass(frozen=True)
class Range:
    """What the probes and the basis have in common."""

    s: Array
    """(m, m): the unit vectors s_i, as columns."""
    w: Array
    """QᵀΩ (m, m)."""
    norms: Array
    """‖ω_i‖² (m,)."""
    dimension: int
    """Of the space that the normal probes live in."""


def trace_samples(xp: ModuleType, basis: Range, k: Action) -> Samples:
    """Of tr K (XTrace)."""
    found = []
    for left in _both(xp, basis):
        rest = k.energy[:, None] - 2.0 * left.with_x(k.g, None) + left.square(k.h)
        found.append(left.kept(k.h) + left.resphered(basis) * rest)
    single = xp.linalg.trace(k.h) + 0.0 * found[0][:, 0] if _has_all(basis) else found[0][:, 0]
    return single, found[1]


def product_samples(xp: ModuleType, basis: Range, k: Action, l: Action, pair: Pair) -> Samples:  # noqa: E741
    """Of ⟨K, L⟩, and of ‖K‖_F² with L = K."""
    found = []
    for left in _both(xp, basis):
        known = 2.0 * left.kept(pair.zz) - left.kept_twice(k.h, l.h)
        image = pair.energy[:, None] - left.with_x_of(pair.yz) - left.with_x_of(pair.zy) + left.square(pair.zz)
        found.append(known + left.resphered(basis) * (image - left.within(k, l)))
    everything = 2.0 * xp.linalg.trace(pair.zz) - xp.sum(k.h * l.h)
    single = everything + 0.0 * found[0][:, 0] if _has_all(basis) else found[0][:, 0]
    return single, found[1]


def _has_all(basis: Range) -> bool:
    """Whether there are as many probes as dimensions: what is left without one then is what that one finds."""
    return int(basis.s.shape[0]) == basis.dimension


def _both(xp: ModuleType, basis: Range) -> tuple[_Left, _Left]:
    """Without one probe (as if a second had no direction of its own), and without two."""
    nothing = basis.s[:, :1] * 0
    return _Left(xp, basis, nothing, 1), _Left(xp, basis, basis.s, 2)


class _Left:
    """The basis without s_i and t_j, t = 0 or s: arrays (m, J), row i a sample, column j the deleted probe."""

    def __init__(self, xp: ModuleType, basis: Range, t: Array, deleted: int) -> None:
        self.xp, self.s, self.t, self.w, self.deleted = xp, basis.s, t, basis.w, deleted
        c = basis.s.T @ t
        if deleted == 2:
            c = c * (1.0 - beside(xp, np.eye(c.shape[0]), c))
        q = 1.0 - c * c
        least = eps(xp, c) ** 0.75
        self.c, self.q = c, xp.where(q > least, q, q * 0 + least)
        a, b = _own(xp, basis.s.T @ basis.w)[:, None], basis.w.T @ t
        self.along_s, self.along_t = (a - c * b) / self.q, (b - c * a) / self.q
        """x_ij = w_i - along_s s_i - along_t t_j."""
        self.size = _own(xp, basis.w.T @ basis.w)[:, None] - self.along_s * a - self.along_t * b
        """‖x_ij‖²."""

    def resphered(self, basis: Range) -> Array:
        """The dimension that is left, over ‖ω̃_i‖²."""
        m = self.s.shape[0]
        return (basis.dimension - m + self.deleted) / (basis.norms[:, None] - self.size)

    def kept(self, f: Array) -> Array:
        """Tr P_ij F."""
        v, vt, vtt = self.s.T @ f @ self.s, self.s.T @ (f + f.T) @ self.t, self.t.T @ f @ self.t
        lost = (_own(self.xp, v)[:, None] + _own(self.xp, vtt)[None, :] - self.c * vt) / self.q
        return self.xp.linalg.trace(f) - lost

    def kept_twice(self, h: Array, k: Array) -> Array:
        """⟨P_ij H P_ij, P_ij K P_ij⟩ for symmetric H and K."""
        product = h @ k
        a11, a12, a22 = self._in_plane(h)
        b11, b12, b22 = (a11, a12, a22) if h is k else self._in_plane(k)
        both = self.kept(product + product.T) - self.xp.sum(h * k)
        return both + a11 * b11 + 2.0 * a12 * b12 + a22 * b22

    def _in_plane(self, h: Array) -> tuple[Array, Array, Array]:
        """Entries of H in an orthonormal basis of the plane of s_i and t_j."""
        v = _own(self.xp, self.s.T @ h @ self.s)[:, None]
        across, last = self.s.T @ h @ self.t, _own(self.xp, self.t.T @ h @ self.t)[None, :]
        root = self.q**0.5
        return v, (across - self.c * v) / root, (last - 2.0 * self.c * across + self.c * self.c * v) / self.q

    def with_x(self, g: Array, f: Array | None) -> Array:
        """g_iᵀ F x_ij, with F = I for None."""
        left = g.T if f is None else g.T @ f
        return self.with_x_of(left)

    def with_x_of(self, left: Array) -> Array:
        """Row i of `left` (m, m) times x_ij."""
        return (
            _own(self.xp, left @ self.w)[:, None]
            - self.along_s * _own(self.xp, left @ self.s)[:, None]
            - self.along_t * (left @ self.t)
        )

    def square(self, f: Array) -> Array:
        """x_ijᵀ F x_ij."""
        from_w = self.with_x_of(self.w.T @ f)
        return from_w - self.along_s * self.from_s(f) - self.along_t * self.from_t(f)

    def from_s(self, f: Array) -> Array:
        """s_iᵀ F x_ij."""
        return self.with_x_of(self.s.T @ f)

    def from_t(self, f: Array) -> Array:
        """t_jᵀ F x_ij."""
        own = _own(self.xp, self.t.T @ f @ self.t)[None, :]
        return (self.t.T @ f @ self.w).T - self.along_s * (self.t.T @ f @ self.s).T - self.along_t * own

    def within(self, k: Action, l: Action) -> Array:  # noqa: E741
        """⟨P_ij Qᵀu, P_ij Qᵀv⟩ with u = K(ω_i - Q x_ij), Qᵀu = g_i - H x_ij, and v the same of L."""
        whole = (
            _own(self.xp, k.g.T @ l.g)[:, None] - self.with_x(k.g, l.h) - self.with_x(l.g, k.h) + self.square(k.h @ l.h)
        )
        u1, u2 = self._against_plane(k)
        v1, v2 = (u1, u2) if k is l else self._against_plane(l)
        return whole - u1 * v1 - u2 * v2

    def _against_plane(self, k: Action) -> tuple[Array, Array]:
        """Components of g_i - H x_ij in the plane of s_i and t_j."""
        first = _own(self.xp, self.s.T @ k.g)[:, None] - self.from_s(k.h)
        second = k.g.T @ self.t - self.from_t(k.h)
        return first, (second - self.c * first) / self.q**0.5


def _own(xp: ModuleType, square: Array) -> Array:
    return xp.linalg.diagonal(square)
