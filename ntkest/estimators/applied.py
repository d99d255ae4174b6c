"""J, Jᵀ and K applied to probes, kernel by kernel: what estimators with both modes have in common."""

from __future__ import annotations

from types import ModuleType

from ..linearization import Array, Blocks, identity, leading
from .images import OutputImages, image_bytes, whole_first
from .problem import Problem

WINDOW = 1 / 4
"""The share of the memory for the parameter-side images of probes on their way to Kω."""


def pull(problem: Problem, a: int, rows: Array) -> Blocks:
    """Jᵀ of unpacked cotangents (k, M), scaled by 2**-exponent: blocks (k, P_l)."""
    kernel = problem.kernels[a]
    cotangents = problem.xp.astype(rows, kernel.J.outputs.dtype, copy=False)
    ready, expand = problem.cotangents(a, cotangents)
    return tuple(kernel.pull(identity, ready, expand, leading(rows)))


def apply(problem: Problem, a: int, rows: Array) -> Array:
    """Kω of unpacked cotangents (k, M), a window at a time."""
    return together(problem.xp, [push(problem, a, pull(problem, a, part))[0] for part in windows(problem, a, rows)])


def apply_kernel(problem: Problem, a: int, probes: Array) -> tuple[Array, tuple[Array, ...]]:
    """ωᵀKω (c, rows), and Kω (c, M) for the whole and each part: a VJP, and a JVP for each part."""
    kernel = problem.kernels[a]
    cotangents, expand = problem.cotangents(a, probes)
    pulled = kernel.pull(identity, cotangents, expand, leading(probes))
    norms = kernel.compile(problem.parameter_norms(a))(pulled)
    return problem.whole_and_parts(norms, 1), push(problem, a, pulled)


def windows(problem: Problem, a: int, rows: Array) -> list[Array]:
    """Cotangents (k, M) as some of them at a time, whose images Jᵀω fit in their share of the memory together."""
    cotangents = problem.xp.astype(rows, problem.kernels[a].J.outputs.dtype, copy=False)
    count, most = rows.shape[0], int(WINDOW * problem.memory) // max(1, image_bytes(problem, "vjp")[a])
    each = -(-count // -(-count // max(1, most)))  # all about as large: a pass of few probes costs nearly as much
    return [cotangents[start : min(start + each, count), :] for start in range(0, count, each)]


def together(xp: ModuleType, pieces: list[Array]) -> Array:
    """What came of windows, one below the other."""
    return pieces[0] if len(pieces) == 1 else xp.concat(pieces, axis=0)


def push(problem: Problem, a: int, pulled: tuple[Array, ...]) -> tuple[Array, ...]:
    """J g for the whole and J_l g_l for each part, (c, M) each, with g = `pulled` scaled by 2**-exponent once more."""
    kernel, xp = problem.kernels[a], problem.xp
    pairs = zip(pulled, kernel.compact.params, strict=True)
    scaled = tuple(xp.astype(problem.scaled(a, block), p.dtype, copy=False) for block, p in pairs)
    reduce = OutputImages(xp, problem.centre)
    parts = []
    for part in range(problem.groups.count):
        blocks = problem.groups.blocks(part) if problem.groups.names else range(len(scaled))
        kept = tuple(block if i in blocks else block * 0.0 for i, block in enumerate(scaled))
        parts.append(kernel.push(reduce, kept, leading(scaled)))
    return whole_first(problem, parts)
