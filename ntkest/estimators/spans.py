"""Vectors that span a sketch, and what is known of the orthonormal ones that they stand for.

A sketch needs Z = JQ for an orthonormal basis Q of its images Y. Images of a network are far from dependent as a rule.
Then Y itself is kept and pushed: with Y = LQ, L being the Cholesky factor of Y's Gram matrix, JQ is L⁻¹(JY), and
nothing of Y's size is written, at a fifth of the operations of a QR. Where they are close to dependent that would lose
digits, and Q is made, by Householder reflections.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from ..linearization import Array, Blocks, is_concrete, number, scalar_dtype
from ..tallskinny import least_for_unit, working_dtype
from ..tangents import Gram, join
from .problem import Problem
from .sketches import grow_basis, grow_products

DIGITS = 0.25
"""The share of the digits that a Cholesky factor may lose, where nothing else is said."""


@dataclass(frozen=True)
class Span:
    """Vectors V as rows, blocks (m, P_l), and L (m, m) with V = LQ; None where they are orthonormal themselves."""

    rows: Blocks
    lower: Array | None = None

    @property
    def count(self) -> int:
        """The number of vectors, m."""
        return int(self.rows[0].shape[0])

    def since(self, have: int) -> Blocks:
        """The vectors from number `have` on."""
        return self.rows if not have else tuple(block[have:, :] for block in self.rows)

    def orthonormal(self, xp: ModuleType) -> Blocks:
        """Q, as rows."""
        return self.rows if self.lower is None else _times(xp, xp.linalg.inv(self.lower), self.rows)

    def turned(self, problem: Problem, old: Blocks | None, images: Blocks) -> Blocks:
        """Images of the last vectors of Q from those of V, given all earlier `old` ones of Q."""
        if self.lower is None:
            return images
        turned: Blocks = problem.compiled(_turned, problem.xp)(self.lower, old, images)
        return turned


def extend_span(
    problem: Problem, old: Span | None, r: Array | None, blocks: Blocks
) -> tuple[Span, Array, Array | None]:
    """With the images in `blocks`; and R of all images, Y = RᵀQ as rows, given that of those before.

    Where Q is first made, the Q that stood before was L⁻¹Y, with a Cholesky factor's loss of digits. The third of what
    is returned turns images of that into images of this one (m', m'); it is None where none changes.
    """
    xp = problem.xp
    span = append_span(problem, old, blocks)
    if span is not None:
        return span, triangle_of(problem, span), None
    if old is None or old.lower is None:
        fresh, r = grow_basis(problem, None if old is None else old.rows, r, blocks)
        return Span(join(xp, None if old is None else old.rows, fresh)), r, None
    rows, r = grow_basis(problem, None, None, join(xp, old.rows, blocks))
    turn = xp.linalg.solve(r[: old.count, : old.count].T, xp.astype(old.lower, r.dtype, copy=False))
    return Span(rows), r, turn


def triangle_of(problem: Problem, span: Span) -> Array:
    """R = Lᵀ of vectors that are not orthonormal themselves."""
    return problem.compiled(_transposed, problem.xp)(span.lower, span.rows)


def append_span(problem: Problem, old: Span | None, blocks: Blocks, independent: float | None = None) -> Span | None:
    """Both as they are; None if the old vectors are orthonormal, or what `blocks` add is too close to dependent.

    `independent` is the eigenvalue that their Gram matrix, that of unit vectors, must exceed: a Cholesky factor loses
    digits as its inverse. None is returned, too, if nobody can tell, since a framework is tracing.
    """
    xp = problem.xp
    if independent is None:
        independent = float(xp.finfo(working_dtype(xp, blocks)).eps) ** DIGITS
    if not is_concrete(blocks[0][0, 0]) or (old is not None and old.lower is None):
        return None
    lower, rows = (None, None) if old is None else (old.lower, old.rows)
    rest, beside, squares = problem.compiled(_complement, xp)(lower, rows, blocks)
    if not number(problem.on_host(least_for_unit)(rest, squares)) > independent:
        return None
    return Span(join(xp, rows, blocks), problem.compiled(_cholesky, xp)(lower, beside, rest))


def _complement(
    xp: ModuleType, lower: Array | None, rows: Blocks | None, blocks: Blocks
) -> tuple[Array, Array | None, Array]:
    """The Gram matrix of what new vectors have beside Q, their products with Q, and their own squared lengths.

    Q is that of V = LQ, given as L and `rows`; array-only.
    """
    corner = grow_products(xp, True, None, blocks, blocks)
    beside, rest = None, corner
    if rows is not None:
        beside = xp.linalg.solve(lower, Gram(xp, (0,) * len(blocks), 1)(rows, blocks)[0, ...])
        rest = corner - beside.T @ beside
    return rest, beside, xp.linalg.diagonal(corner)


def _cholesky(xp: ModuleType, lower: Array | None, beside: Array | None, rest: Array) -> Array:
    """L of all vectors."""
    corner = xp.linalg.cholesky(rest)
    if lower is None or beside is None:
        return corner
    above = xp.concat([lower, xp.zeros_like(beside)], axis=1)
    return xp.concat([above, xp.concat([beside.T, corner], axis=1)], axis=0)


def _turned(xp: ModuleType, lower: Array, old: Blocks | None, images: Blocks) -> Blocks:
    """See `Span.turned`; array-only."""
    have = lower.shape[0] - images[0].shape[0]
    if old is not None:
        before = _times(xp, lower[have:, :have], old)
        images = tuple(xp.astype(a, b.dtype, copy=False) - b for a, b in zip(images, before, strict=True))
    return _times(xp, xp.linalg.inv(lower[have:, have:]), images)


def _transposed(xp: ModuleType, lower: Array, rows: Blocks) -> Array:
    """Lᵀ in the dtype that rows are worked with; array-only."""
    return xp.astype(lower.T, working_dtype(xp, rows), copy=False)


def _times(xp: ModuleType, matrix: Array, rows: Blocks) -> Blocks:
    wide = [xp.astype(row, scalar_dtype(xp, row), copy=False) for row in rows]
    return tuple(xp.astype(matrix, row.dtype, copy=False) @ row for row in wide)
