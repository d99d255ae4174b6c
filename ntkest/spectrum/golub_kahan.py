"""Block Golub–Kahan bidiagonalisation, reorthogonalised on the left, with deflation.

From orthonormal rows Q₁ on the left, alternately

    Jᵀ Q_j = A_j V_{j-1} + D_j V_j        (rows; D_j and V_j by QR)
    J V_j  = D_jᵀ Q_j + A_{j+1}ᵀ Q_{j+1}  (A_{j+1} and Q_{j+1} by QR)

so that Jᵀ Q = B V with B lower block bidiagonal. Its singular values are Ritz values of J: their squares err by
ε·σ₁σ_i, where Lanczos on K errs by ε·σ₁². Directions that are new to rounding only are dropped, so the space may end
early: then it is invariant and the values are exact. A block of b rows finds eigenvalues of multiplicity up to b.
Of the right basis the last block is kept: that the left one is orthonormal is enough for B to be right, as measured
in float32 on spectra that fall by twelve orders of magnitude.

Reference: Golub, Luk, Overton, "A block Lanczos method for computing the singular values and corresponding singular
vectors of a matrix", ACM TOMS 1981; Simon and Zha, "Low-rank matrix approximation using the Lanczos bidiagonalization
process", SISC 2000, for reorthogonalisation on one side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..linearization import Blocks, beside, leading
from .blocks import combine, deflate, factor, subtract
from .sides import ROUNDING, Operator, host

CANCELLED = 0.1
"""Below this share of σ₁ the smallest of new directions counts as a difference of large numbers."""


@dataclass(frozen=True)
class Ritz:
    """Singular triplets of B, from the largest on."""

    values: np.ndarray
    """σ, one for each row of the left basis: those beyond the right basis are zero."""
    left: np.ndarray
    """(d, d): column i makes the i-th left vector from the basis."""
    residuals: np.ndarray
    """‖K q - σ² q‖."""


class GolubKahan:
    """A left basis, the last block of the right one, and B between them; `advance` adds a block to each."""

    def __init__(self, operator: Operator, start: Blocks) -> None:
        self.operator = operator
        self.left: list[Blocks] = [start]
        self.right: list[Blocks] = []
        """Its last block, if there is one."""
        self.matrix = np.zeros((0, 0))
        self.coupling = np.zeros((leading(start), 0))
        """A of the block of the left basis that comes next, (b, columns of V's last block)."""
        self.following: Blocks | None = start
        """That block; None once the space is invariant."""
        self.largest = 0.0

    @property
    def size(self) -> int:
        """Vectors in the left basis that B speaks of."""
        return int(self.matrix.shape[0])

    @property
    def block(self) -> int:
        """Vectors that the next step adds."""
        return 0 if self.following is None else leading(self.following)

    def advance(self) -> None:
        """Push the next left block to the right and back: `block` passes, and one back for each new direction."""
        assert self.following is not None
        q, count = self.following, leading(self.following)
        images = self.operator.push(q)
        if self.coupling.shape[1]:
            images = self._apply(subtract, images, self._small(self.coupling, images), self.right[-1])
        v, diagonal = self._new(images, self.right, leading(images))
        new = diagonal.shape[1]
        matrix = np.zeros((self.size + count, self.matrix.shape[1] + new))
        matrix[: self.size, : self.matrix.shape[1]] = self.matrix
        matrix[self.size :, self.matrix.shape[1] - self.coupling.shape[1] : self.matrix.shape[1]] = self.coupling
        matrix[self.size :, self.matrix.shape[1] :] = diagonal
        coupling, following = np.zeros((0, new)), None
        if v is not None:
            back = self.operator.pull(v)
            back = self._apply(subtract, back, self._small(diagonal.T, back), q)
            for _ in range(2):
                back = self._deflated(back, self.left)
            room = self.operator.space(self.operator.left) - sum(map(leading, self.left))
            following, factors = self._new(back, self.left, room)
            coupling = factors.T
            self.right = [v]
        self.matrix, self.coupling, self.following = matrix, coupling, following
        if following is not None:
            self.left.append(following)

    def ritz(self) -> Ritz:
        """What is known now."""
        left, found, right = np.linalg.svd(self.matrix)
        values, residuals = np.zeros(self.size), np.zeros(self.size)
        values[: len(found)] = found
        if self.following is not None:
            last = right[: len(found), self.matrix.shape[1] - self.coupling.shape[1] :]  # (values, last block)
            residuals[: len(found)] = found * np.linalg.norm(last @ self.coupling.T, axis=1)
        return Ritz(values, left, residuals)

    def vectors(self, weights: np.ndarray) -> Blocks:
        """Left vectors (d, j) made from the basis, as j rows."""
        total: Blocks | None = None
        start = 0
        for block in self.left:
            stop = start + leading(block)
            if start >= self.size:
                break
            part = self._apply(combine, self._small(weights[start:stop, :].T, block), block)
            total = part if total is None else tuple(a + b for a, b in zip(total, part, strict=True))
            start = stop
        assert total is not None
        return total

    def _new(self, rows: Blocks, basis: list[Blocks], room: int) -> tuple[Blocks | None, np.ndarray]:
        """An orthonormal basis of rows without components along `basis`, None if they are nothing, and their factors.

        At most `room` vectors. Where rows are nearly dependent, QR blows up rounding errors that have components
        along the basis, so that these are taken away once more.
        """
        count = leading(rows)
        if room <= 0:
            return None, np.zeros((count, 0))
        ortho, factors = orthonormal(self.operator, rows, self.largest, min(room, count))
        if ortho is None:
            return None, factors
        self.largest = max(self.largest, float(np.linalg.norm(factors, 2)))
        if basis and np.linalg.norm(factors, -2) < CANCELLED * self.largest:
            ortho, again = self.operator.compiled(factor)(self._deflated(ortho, basis))
            factors = factors @ host(again)
        return ortho, factors

    def _deflated(self, rows: Blocks, basis: list[Blocks]) -> Blocks:
        for block in basis:
            rows = self._apply(deflate, rows, block)
        return rows

    def _small(self, numbers: np.ndarray, like: Blocks) -> object:
        return beside(self.operator.xp, numbers, like[0])

    def _apply(self, function: object, *arguments: object) -> Blocks:
        result: Blocks = self.operator.compiled(function)(*arguments)  # type: ignore[arg-type]
        return result


def orthonormal(operator: Operator, rows: Blocks, largest: float, room: int) -> tuple[Blocks | None, np.ndarray]:
    """Orthonormal rows Q and F (k, r) with rows = F Q, for the r ≤ room directions that stand out of rounding."""
    ortho, small = operator.compiled(factor)(rows)
    factors = host(small)
    x, sizes, y = np.linalg.svd(factors)
    largest = max(largest, float(sizes[0]))
    rank = min(room, int(np.sum(sizes > ROUNDING * operator.eps * largest)))
    if rank == 0:
        return None, np.zeros((factors.shape[0], 0))
    if rank == factors.shape[0]:
        return ortho, factors
    turned = operator.compiled(combine)(beside(operator.xp, y[:rank, :], rows[0]), ortho)
    return turned, x[:, :rank] * sizes[:rank]
