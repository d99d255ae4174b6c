"""K + λI in factors: by Cholesky for one λ, or by eigenvectors for all of them.

Both answer the same questions. The Array API has a Cholesky factorisation but no triangular solver, so there is one
here, which halves the triangle until blocks are small: nearly all of its work is products.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import array_api_compat
import numpy as np

from ..linearization import Array, InvalidValueError, beside, device, is_concrete, number

SLICE = 2048
"""Rows of an identity matrix that exist at once."""

LEAF = 128
"""Rows of a triangle that are solved at once."""


@dataclass(frozen=True)
class Cholesky:
    """K + λI = L Lᵀ. m³/3 multiplications."""

    lower: Array
    """L (m, m)."""

    @property
    def xp(self) -> ModuleType:
        """The namespace."""
        return _namespace(self.lower)

    def solve(self, values: Array) -> Array:
        """(K + λI)⁻¹ B for B (m, c)."""
        return solve_upper(self.xp, self.lower.T, solve_lower(self.xp, self.lower, values))

    def whiten(self, values: Array) -> Array:
        """Some W with WᵀW = Bᵀ(K + λI)⁻¹B."""
        return solve_lower(self.xp, self.lower, values)

    def inverse_blocks(self, block: int) -> Array:
        """The diagonal blocks (N, b, b) of the inverse; m³/3 multiplications more."""
        m = self.lower.shape[0]
        inverse = solve_lower(self.xp, self.lower, beside(self.xp, np.eye(m), self.lower))
        return _grams(self.xp, inverse, block)

    def logdet(self) -> Array:
        """Log det (K + λI)."""
        return 2 * self.xp.sum(self.xp.log(self.xp.linalg.diagonal(self.lower)))


@dataclass(frozen=True)
class Spectral:
    """K = U Λ Uᵀ of rank r, and a ridge λ, positive where r < m."""

    vectors: Array
    """U (m, r)."""
    eigenvalues: Array
    """(r,)."""
    ridge: float | Array

    @property
    def xp(self) -> ModuleType:
        """The namespace."""
        return _namespace(self.vectors)

    def solve(self, values: Array) -> Array:
        """(K + λI)⁻¹ B for B (m, c)."""
        inside = self.vectors.T @ values
        if self._whole:
            return self.vectors @ (self._inverse[:, None] * inside)
        return self.vectors @ ((self._inverse - 1 / self.ridge)[:, None] * inside) + values / self.ridge

    def whiten(self, values: Array) -> Array:
        """Some W with WᵀW = Bᵀ(K + λI)⁻¹B."""
        inside = self.vectors.T @ values
        found = self._inverse[:, None] ** 0.5 * inside
        if self._whole:
            return found
        outside = (values - self.vectors @ inside) / self.ridge**0.5
        return self.xp.concat([found, outside], axis=0)

    def inverse_blocks(self, block: int) -> Array:
        """The diagonal blocks (N, b, b) of the inverse; r·m·b multiplications."""
        if self._whole:
            return _grams(self.xp, (self.vectors * self._inverse**0.5).T, block)
        weights = 1 / self.ridge - self._inverse  # not negative
        identity = beside(self.xp, np.eye(block), self.vectors) / self.ridge
        return identity - _grams(self.xp, (self.vectors * weights**0.5).T, block)

    def logdet(self) -> Array:
        """Log det (K + λI)."""
        return self.xp.sum(self.xp.log(self.eigenvalues + self.ridge))

    @property
    def _whole(self) -> bool:
        return bool(self.vectors.shape[0] == self.vectors.shape[1])

    @property
    def _inverse(self) -> Array:
        return 1 / (self.eigenvalues + self.ridge)


Factor = Cholesky | Spectral
"""K + λI."""


def cholesky(xp: ModuleType, K: Array, ridge: float | Array) -> Cholesky:
    """The factor of K + λI.

    Raises
    ------
    InvalidValueError
        K + λI is not positive definite to rounding.
    """
    try:
        lower = xp.linalg.cholesky(_shifted(xp, K, ridge))
    except (ValueError, RuntimeError) as error:  # NumPy's LinAlgError is one, torch's the other; jax gives NaN
        raise _indefinite(ridge) from error
    last = lower[-1, -1]
    if is_concrete(last) and not number(last) > 0:
        raise _indefinite(ridge)
    return Cholesky(lower)


def _shifted(xp: ModuleType, K: Array, ridge: float | Array) -> Array:
    """K + λI, in slices of rows: an identity as large as K would cost as much memory."""
    m, parts = K.shape[0], []
    for start in range(0, m, SLICE):
        stop = min(start + SLICE, m)
        diagonal = xp.eye(stop - start, m, k=start, dtype=K.dtype, device=device(K))
        parts.append(K[start:stop, :] + ridge * diagonal)
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


def spectral(xp: ModuleType, K: Array) -> tuple[Array, Array]:
    """Eigenvalues (m,), ascending, none negative, and eigenvectors (m, m) of K."""
    values, vectors = xp.linalg.eigh(K)
    return xp.where(values > 0, values, xp.zeros_like(values)), vectors


def solve_lower(xp: ModuleType, lower: Array, values: Array) -> Array:
    """L⁻¹ B for lower triangles L (…, m, m) and B (…, m, c); m²c multiplications, nearly all in products."""
    m = lower.shape[-1]
    if m <= LEAF:
        return xp.linalg.solve(lower, values)
    half = m // 2
    first = solve_lower(xp, lower[..., :half, :half], values[..., :half, :])
    rest = values[..., half:, :] - lower[..., half:, :half] @ first
    return xp.concat([first, solve_lower(xp, lower[..., half:, half:], rest)], axis=-2)


def solve_upper(xp: ModuleType, upper: Array, values: Array) -> Array:
    """U⁻¹ B for upper triangles U (…, m, m) and B (…, m, c)."""
    m = upper.shape[-1]
    if m <= LEAF:
        return xp.linalg.solve(upper, values)
    half = m // 2
    last = solve_upper(xp, upper[..., half:, half:], values[..., half:, :])
    rest = values[..., :half, :] - upper[..., :half, half:] @ last
    return xp.concat([solve_upper(xp, upper[..., :half, :half], rest), last], axis=-2)


def _namespace(array: Array) -> ModuleType:
    return array_api_compat.array_namespace(array)  # type: ignore[no-any-return]


def _grams(xp: ModuleType, rows: Array, block: int) -> Array:
    """WᵀW in its diagonal blocks (N, b, b), for W (r, N·b)."""
    if block == 1:
        return xp.sum(rows * rows, axis=0)[:, None, None]
    each = xp.permute_dims(xp.reshape(rows, (rows.shape[0], -1, block)), (1, 2, 0))  # (N, b, r)
    return each @ xp.matrix_transpose(each)


def _indefinite(ridge: float | Array) -> InvalidValueError:
    return InvalidValueError(
        f"the kernel with ridge={ridge if isinstance(ridge, float) else number(ridge):.3g} is not positive definite to "
        "rounding; raise the ridge, use ridge='loo', or compute the kernel in float64"
    )
