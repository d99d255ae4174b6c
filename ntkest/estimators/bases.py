"""Growing orthonormal bases of images on the side of the parameters: one of all blocks, or one of each part of them.

A basis of all is kept as a `Span` where that may be: nothing of the images' size is written then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..linearization import Array, Blocks, leading
from ..tallskinny import extend_basis, grown_triangle, separate
from ..tangents import Gram, join
from .problem import Problem
from .spans import Span, append_span, triangle_of

INDEPENDENT = 0.25
"""See `append_span`. What is measured beside a basis is a difference, which must not be less than rounding errors.

With this much a Cholesky factor is as good as a QR."""


@dataclass(frozen=True)
class Basis:
    """Q of one kernel, for JᵀΩ = QR in each part."""

    span: Span
    """Qᵀ, blocks (k, P_l), orthonormal within each part; or what stands for it."""
    triangles: tuple[Array, ...]
    """For each part R (k, k)."""

    @property
    def count(self) -> int:
        """The number of vectors, k."""
        return self.span.count


def extended(problem: Problem, a: int, old: Basis | None, images: Blocks) -> Basis:
    """Kernel a's basis with images Jᵀω (n, P_l). The vectors that it had stay."""
    if not problem.groups.names:
        span = append_span(problem, None if old is None else old.span, images, INDEPENDENT)
        if span is not None:
            return Basis(span, (triangle_of(problem, span),))
        if old is not None:
            old = replace(old, span=Span(old.span.orthonormal(problem.xp)))
    return _by_part(problem, a, old, images)


def _by_part(problem: Problem, a: int, old: Basis | None, images: Blocks) -> Basis:
    """Orthonormal vectors for each part."""
    xp, part_of = problem.xp, problem.part_of(a)
    out: list[Array] = list(images)
    triangles = []
    for part in range(problem.groups.count):
        mine = [i for i, owner in enumerate(part_of) if owner == part]
        before = None if old is None else tuple(old.span.rows[i] for i in mine)
        q, across, triangle = _extend(problem, before, tuple(images[i] for i in mine))
        for i, block in zip(mine, q, strict=True):
            out[i] = block
        if old is not None:
            triangle = grown_triangle(xp, old.triangles[part], across, triangle)
        triangles.append(triangle)
    return Basis(Span(join(xp, None if old is None else old.span.rows, tuple(out))), tuple(triangles))


def _extend(problem: Problem, old: Blocks | None, images: Blocks) -> tuple[Blocks, Array, Array]:
    """`extend_basis` to as many vectors as the part has parameters, and zeros from there on.

    A QR would find the zeros too, but has no derivative there.
    """
    xp, count, have = problem.xp, leading(images), 0 if old is None else leading(old)
    room = max(0, sum(block.shape[1] for block in images) - have)
    if count <= room:
        return extend_basis(xp, old, separate(xp, images, have), problem.compiled)
    first, others = tuple(block[:room, :] for block in images), tuple(block[room:, :] for block in images)
    q, across, triangle = extend_basis(xp, old, separate(xp, first, have), problem.compiled)
    others = tuple(xp.astype(b, a.dtype, copy=False) for a, b in zip(q, others, strict=True))
    gram, dtype = Gram(xp, (0,) * len(q), 1), triangle.dtype
    inside = xp.astype(gram(q, others)[0, ...], dtype, copy=False)
    if old is not None:
        across = xp.concat([across, xp.astype(gram(old, others)[0, ...], dtype, copy=False)], axis=1)
    own = xp.astype(gram(others, others)[0, ...], dtype, copy=False)
    triangle = grown_triangle(xp, triangle, inside, own * 0.0)
    return join(xp, q, tuple(b * 0.0 for b in others)), across, triangle
