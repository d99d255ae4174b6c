"""Block Krylov spaces that grow until what is wanted of them has converged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..linearization import Blocks, InvalidValueError
from ..tangents import join
from .blocks import factor
from .golub_kahan import GolubKahan, Ritz, orthonormal
from .sides import ROUNDING, Operator
from .whole import Found

Report = Callable[[int, int], None]
"""Told of passes spent and expected."""


def block_size(operator: Operator, k: int) -> int:
    """A quarter and two more than k: the space converges at the gap behind the block."""
    return min(k + k // 4 + 2, operator.space(operator.left))


def krylov(operator: Operator, k: int, block: int, tol: float, max_passes: int, seed: int, report: Report) -> Found:
    """Block steps until the k largest have converged."""
    if not operator.rank:
        return Found(np.zeros(k), np.zeros(k), None, 0.0)
    run, finished, interrupted = iterate(
        operator, block, lambda run: done(operator, run.ritz(), k, tol), max_passes, seed, report
    )
    ritz = run.ritz()
    count = min(k, run.size)
    sizes, residuals = (np.pad(a[:count], (0, k - count)) for a in (ritz.values, ritz.residuals))
    rows = run.vectors(ritz.left[:, :count])
    return Found(sizes, residuals, rows, float(sizes[0]), finished, interrupted)


def iterate(
    operator: Operator,
    block: int,
    stop: Callable[[GolubKahan], bool],
    max_passes: int,
    seed: int,
    report: Report,
) -> tuple[GolubKahan, bool, bool]:
    """Block steps until `stop` says so or the space is invariant; whether that was reached, or was interrupted.

    Where the basis outgrows memory, a new run starts from its leading vectors.
    """
    left_rows = _capacity(operator, block)
    run = GolubKahan(operator, start_block(operator, block, seed))
    while True:
        cost = run.block * operator.step_passes()
        if operator.problem.passes + cost > max_passes:
            if not run.size:
                raise InvalidValueError(
                    f"max_passes={max_passes} is too few: the next step, with {run.block} vectors, takes {cost}"
                )
            return run, False, False
        try:
            run.advance()
        except KeyboardInterrupt:
            if not run.size:
                raise
            return run, True, True
        if run.following is None or stop(run):
            report(operator.problem.passes, operator.problem.passes)
            return run, True, False
        report(operator.problem.passes, max_passes)
        can_go_on = operator.problem.passes + (block + run.block) * operator.step_passes() <= max_passes
        if run.size + 2 * run.block > left_rows and can_go_on:
            run = _restarted(operator, run, block)


def start_block(operator: Operator, block: int, seed: int) -> Blocks:
    """Orthonormal rows from signs."""
    rows = operator.centred(operator.left, operator.signs(operator.left, seed, 0, block, sketch=True))
    start, _ = orthonormal(operator, rows, 0.0, block)
    assert start is not None
    return start


def done(operator: Operator, ritz: Ritz, k: int, tol: float) -> bool:
    """Whether each of the k largest has a small residual, or is zero to rounding."""
    sizes, residuals = ritz.values[:k], ritz.residuals[:k]
    noise = ROUNDING * operator.eps * ritz.values[0]
    return bool(np.all((residuals <= np.maximum(tol * sizes**2, noise * sizes)) | (sizes <= noise)))


def _restarted(operator: Operator, run: GolubKahan, block: int) -> GolubKahan:
    """A new run from the leading left vectors and the block that comes next: a thick restart."""
    assert run.following is not None
    ritz = run.ritz()
    leaders = run.vectors(ritz.left[:, :block])
    start = join(operator.xp, leaders, run.following)
    ortho, _ = operator.compiled(factor)(start)
    return GolubKahan(operator, ortho)


def _capacity(operator: Operator, block: int) -> int:
    """Rows of the left basis that fit in half of the memory; the other half is for images."""
    if not holds(operator, block):
        need = 8 * block * max(operator.row_bytes(operator.right), 2 * operator.row_bytes(operator.left))
        raise InvalidValueError(
            f"memory={operator.problem.memory} bytes do not hold blocks of {block} vectors; "
            f"ask for fewer eigenvalues, or give memory={need} or more"
        )
    return _rows(operator, operator.left)


def holds(operator: Operator, block: int) -> bool:
    """Whether memory is enough: images, two blocks of the basis and a QR in the making, and room for a Krylov space."""
    return _rows(operator, operator.right) >= 4 * block and _rows(operator, operator.left) >= 8 * block


def _rows(operator: Operator, side: str) -> int:
    return operator.problem.memory // 2 // operator.row_bytes(side)
