"""Stub until merged."""
from __future__ import annotations
from types import ModuleType
from .linearization import Array, Blocks, scalar_dtype


def extend_basis(xp: ModuleType, blocks: Blocks, old: tuple[Blocks, Array] | None = None) -> tuple[Blocks, Array]:
    """New orthonormal rows, and R of all."""
    flat = xp.concat([xp.astype(b, scalar_dtype(xp, b), copy=False) for b in blocks], axis=1)
    if old is None:
        q, r = xp.linalg.qr(flat.T)
        new = q.T
    else:
        q0 = xp.concat(list(old[0]), axis=1)
        a = q0 @ flat.T
        rest = flat - a.T @ q0
        b = q0 @ rest.T
        rest = rest - b.T @ q0
        q, r1 = xp.linalg.qr(rest.T)
        new = q.T
        r0 = old[1]
        zero = xp.zeros((r1.shape[0], r0.shape[1]), dtype=r1.dtype)
        r = xp.concat([xp.concat([r0, a + b], axis=1), xp.concat([zero, r1], axis=1)], axis=0)
    out = []
    s = 0
    for b in blocks:
        out.append(new[:, s : s + b.shape[1]])
        s += b.shape[1]
    return tuple(out), r
