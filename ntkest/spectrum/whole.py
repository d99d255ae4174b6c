"""All singular values of J, from all of its rows or columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..linearization import Array, Blocks, InvalidValueError, accumulator
from .blocks import triangle, wide_gram
from .sides import ROUNDING, Operator, host


@dataclass(frozen=True)
class Found:
    """Singular values of the scaled operator, and vectors on the left."""

    sizes: np.ndarray
    """(k,): singular values."""
    residuals: np.ndarray
    """(k,): of their squares, without rounding."""
    rows: Blocks | None
    """Left singular vectors; None if the operator has none."""
    largest: float
    finished: bool = True
    """Whether nothing is left to be done: the values have converged, or the user has interrupted."""
    interrupted: bool = False


def exact_passes(operator: Operator) -> int:
    """AD passes for all of J, or of K where the images do not fit in memory together."""
    each = operator.push_passes() if exact_fits(operator) else operator.step_passes()
    return operator.size(operator.left) * each


def exact_fits(operator: Operator) -> bool:
    """Whether memory holds all images, and slices of them in the making of a QR."""
    need = operator.size(operator.left) * (operator.row_bytes(operator.right) + 2 * operator.row_bytes(operator.left))
    return 1.1 * need <= operator.problem.memory


def exact(operator: Operator, k: int, vectors: bool = True) -> Found:
    """All of J: singular values from the images of unit vectors.

    Of float32 images the Gram matrix in float64 loses nothing; else a QR of them takes its place. Where they do not fit
    in memory, K is made some rows at a time, and eigenvalues are right to rounding of the largest only.
    """
    count = operator.size(operator.left)
    if not operator.rank:
        return Found(np.zeros(k), np.zeros(k), None, 0.0)
    error = 0.0
    if exact_fits(operator):
        images = operator.push(operator.units(0, count))
        total = operator.xp.finfo(accumulator(operator.xp, images[0])).eps
        if float(total) < operator.eps**1.5:
            left, values = _of_square(operator, wide_gram(operator.xp, images), k, vectors)
        else:
            left, values = _of_factor(operator, triangle(operator.xp, images), k, vectors)
    else:
        if not operator.both:
            raise InvalidValueError(
                f"memory={operator.problem.memory} does not hold the {count} images that this model, which has "
                f"{sorted(operator.linearization.modes)} only, must be asked for; raise memory="
            )
        left, values = _of_square(operator, _gram(operator, count), k, vectors)
        error = ROUNDING * operator.eps * float(values[0]) ** 2
    rows = None if left is None else operator.split(left.T)
    return Found(np.pad(values, (0, k - len(values))), np.full(k, error), rows, float(values[0]))


def _of_factor(operator: Operator, matrix: Array, k: int, vectors: bool) -> tuple[Array | None, np.ndarray]:
    """Left singular vectors as columns, if wanted, and singular values of a matrix, at most k."""
    xp = operator.xp
    _check_finite(operator, matrix)
    if not vectors:
        return None, host(xp.linalg.svdvals(matrix))[:k]
    left, sizes, _ = xp.linalg.svd(matrix, full_matrices=False)
    return left[:, : min(k, left.shape[1])], host(sizes)[:k]


def _of_square(operator: Operator, square: Array, k: int, vectors: bool) -> tuple[Array | None, np.ndarray]:
    """The same of a matrix whose square, with its transpose, is given."""
    xp = operator.xp
    _check_finite(operator, square)
    k = min(k, square.shape[0])
    left = None
    if vectors:
        squares, found = xp.linalg.eigh(square)
        left = xp.flip(found, axis=1)[:, :k]
    else:
        squares = xp.linalg.eigvalsh(square)
    return left, np.sqrt(np.maximum(host(xp.flip(squares, axis=0)[:k]), 0.0))


def _check_finite(operator: Operator, matrix: Array) -> None:
    """Decompositions refuse what is not finite with a framework's own words."""
    host(operator.xp.max(operator.xp.abs(matrix)))


def _gram(operator: Operator, count: int) -> Array:
    """The operator's square, some rows at a time."""
    xp = operator.xp
    most = max(1, operator.problem.memory // (4 * operator.row_bytes(operator.right)))
    pieces = []
    for start in range(0, count, most):
        rows = operator.pull(operator.push(operator.units(start, min(start + most, count))))
        pieces.append(rows[0] if len(rows) == 1 else xp.concat([xp.astype(b, rows[0].dtype) for b in rows], axis=1))
    square = xp.concat(pieces, axis=0)
    return (square + square.T) / 2
