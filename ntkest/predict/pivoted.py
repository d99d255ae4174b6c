"""Randomly pivoted Cholesky: K ≈ F Fᵀ of a chosen rank, from as few columns of K.

Each pivot is drawn with a probability proportional to what is left of K's diagonal, so that outliers are neither
ignored nor preferred; the error in trace is near that of the best approximation of the rank. Pivots are proposed
several at a time from the diagonal as it was, and each is kept with the probability by which its share has shrunk
since: they have the same law as pivots drawn one by one, and their columns come together.

References: Chen, Epperly, Tropp, Webber, "Randomly pivoted Cholesky: practical approximation of a kernel matrix with
few entry evaluations", 2023 (arXiv 2207.06503); Epperly, Tropp, Webber, "Embrace rejection: kernel matrix approximation
by accelerated randomly pivoted Cholesky", 2024 (arXiv 2410.03969).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, ShapeError, accumulator, beside, eps, numbers
from .systems import check_beside, check_kernel

ROUNDS = 8
"""Proposals are made about this many times, fewer pivots being refused the more often the diagonal is brought up."""

Columns = Callable[[np.ndarray], Array]
"""From the indices (k,) of examples to these columns (m, k) of the kernel."""


@dataclass(frozen=True)
class PivotedCholesky:
    """K ≈ F Fᵀ, exact in the rows and columns of the pivots."""

    factor: Array
    """F (m, k), wide: in float64 where the device has it."""
    pivots: np.ndarray
    """(k,): which rows of K they are, in the order in which they were drawn."""
    residual: float
    """tr(K - F Fᵀ) / tr K."""


def pivoted_cholesky(
    K: Any, rank: int, diagonal: Any = None, *, block: int | None = None, seed: int = 0
) -> PivotedCholesky:
    """A low-rank approximation of a kernel from few of its columns.

    Parameters
    ----------
    K : array (m, m), or callable
        The kernel; or, if K as a whole is too large, a function from indices (k,), NumPy integers, to its columns
        (m, k): ``lambda i: ntkest.pntk(J, ntkest.linearize(model, inputs[i]))``.
    rank : int
        k, the number of pivots. Fewer come back where K has a lower rank to rounding.
    diagonal : array (m,), optional
        Of the kernel; needed with a callable, and else K's own.
    block : int, optional
        Pivots proposed together; default rank/8. It changes which pivots are drawn, and not their law.
    seed : int

    Returns
    -------
    PivotedCholesky
        For m·k² multiplications and the columns of all pivots proposed, some of which are refused.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError
    """
    columns, diagonal = _source(K, diagonal)
    xp: ModuleType = array_api_compat.array_namespace(diagonal)
    rank, block = _counted("rank", rank), _counted("block", -(-rank // ROUNDS) if block is None else block)
    if rank > diagonal.shape[0]:
        raise InvalidValueError(f"rank={rank} is more than the {diagonal.shape[0]} rows of the kernel")
    draw, wide = np.random.default_rng(seed), accumulator(xp, diagonal)
    left = numbers(diagonal)  # what is left of the diagonal, on the host, where pivots are drawn
    if not (np.isfinite(left).all() and left.min() >= 0 and left.max() > 0):
        raise InvalidValueError("the diagonal of a kernel is finite and not negative, and not zero everywhere")
    total, least = left.sum(), 10 * eps(xp, diagonal) * left.max()
    factor = beside(xp, np.zeros((len(left), 0)), diagonal, wide)
    pivots: list[int] = []
    while len(pivots) < rank and left.max() > least:
        proposed = draw.choice(len(left), size=block, p=left / left.sum())
        indices = np.unique(proposed)
        found = xp.astype(_checked(columns(indices), diagonal, len(indices)), wide, copy=False)
        found = found - factor @ take_rows(xp, factor, indices).T  # (m, k') of K - F Fᵀ
        inside = numbers(take_rows(xp, found, indices))
        kept, lower = _accept(draw, inside, np.searchsorted(indices, proposed), rank - len(pivots), least)
        chosen = take_rows(xp, found.T, kept).T
        new = chosen @ beside(xp, np.linalg.inv(lower).T, factor)
        factor = xp.concat([factor, new], axis=1)
        pivots.extend(int(i) for i in indices[kept])
        left = np.maximum(left - numbers(xp.sum(new * new, axis=1)), 0)
        left[pivots] = 0
    return PivotedCholesky(factor, np.array(pivots), float(left.sum() / total))


def _accept(
    draw: np.random.Generator, inside: np.ndarray, proposed: np.ndarray, most: int, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the proposals (positions in `inside`, what is left of K among them) become pivots, and their factor.

    A proposal is kept with probability its share of the diagonal now, over that when it was proposed. Returns positions
    (k,) and the lower triangle (k, k) of the Cholesky factorisation among them.
    """
    before = np.diagonal(inside).copy()
    rows = np.zeros((0, len(inside)))  # of the factor, one a pivot
    kept: list[int] = []
    for i in proposed:
        now = before[i] - rows[:, i] @ rows[:, i]
        if len(kept) == most or i in kept or now <= least or draw.random() * before[i] > now:
            continue
        rows = np.vstack([rows, (inside[i] - rows[:, i] @ rows) / np.sqrt(now)])
        kept.append(int(i))
    return np.array(kept, dtype=int), rows[:, kept].T


def _source(K: Any, diagonal: Any) -> tuple[Columns, Array]:
    """A kernel or a function for its columns, and the diagonal."""
    if not callable(K):
        xp = check_kernel(K)
        if diagonal is not None:
            raise InvalidTypeError("diagonal= goes with a function for columns; an array has its own")
        return (lambda indices: take_rows(xp, K, indices).T), xp.linalg.diagonal(K)
    if not array_api_compat.is_array_api_obj(diagonal):
        raise InvalidTypeError("with a function for the columns of a kernel diagonal= is needed, an array (m,)")
    if len(diagonal.shape) != 1 or 0 in diagonal.shape:
        raise ShapeError(f"the diagonal of a kernel has shape (m,), not {tuple(diagonal.shape)}")
    return K, diagonal


def _checked(found: Any, diagonal: Array, count: int) -> Array:
    check_beside(found, diagonal, "the columns of the kernel")
    if tuple(found.shape) != (diagonal.shape[0], count):
        raise ShapeError(f"{count} columns of the kernel have shape {(diagonal.shape[0], count)}, not {found.shape}")
    return found


def take_rows(xp: ModuleType, array: Array, indices: np.ndarray) -> Array:
    """Rows of an array, by indices on the host."""
    return xp.take(array, beside(xp, indices, array, xp.int32), axis=0)


def _counted(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidTypeError(f"{name}= takes a positive integer, not {value!r}")
    if value < 1:
        raise InvalidValueError(f"{name}= takes a positive integer, not {value}")
    return int(value)
