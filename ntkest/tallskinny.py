"""Stub until merged."""

from __future__ import annotations

from types import ModuleType

from .linearization import Array, Blocks, scalar_dtype


def extend_basis(xp: ModuleType, basis: Blocks | None, blocks: Blocks) -> tuple[Blocks, Array, Array]:
    """Y = Q₀C + QR for a basis Q₀ of k vectors: Q (m, P_l), C (k, m) and R (m, m)."""
    flat = xp.concat([xp.astype(b, scalar_dtype(xp, b), copy=False) for b in blocks], axis=1)
    if basis is None:
        q, r = xp.linalg.qr(flat.T)
        c = r[:0, :]
    else:
        q0 = xp.concat(list(basis), axis=1)
        a = q0 @ flat.T
        rest = flat - a.T @ q0
        b = q0 @ rest.T
        rest = rest - b.T @ q0
        q, r = xp.linalg.qr(rest.T)
        c = a + b
    new = q.T
    out = []
    s = 0
    for b in blocks:
        out.append(new[:, s : s + b.shape[1]])
        s += b.shape[1]
    return tuple(out), c, r
