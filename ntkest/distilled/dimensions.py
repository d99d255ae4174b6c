"""Parameter redundancy: how class kernels survive the projection of gradients to fewer dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, ShapeError, number, numbers
from ..predict.systems import check_beside
from .features import check_features, of_class, unit
from .truncation import checked_share, truncation_rank


@dataclass(frozen=True)
class ParameterRedundancy:
    """How class kernels survive in fewer dimensions; made by `parameter_redundancy`, prints as a table."""

    dims: tuple[int, ...]
    """k'."""
    kernel_errors: np.ndarray
    """(len(dims), O): ‖K'_c - K_c‖_F / ‖K_c‖_F."""
    spectrum_errors: np.ndarray
    """(len(dims), O): ‖λ' - λ‖ / ‖λ‖ of all eigenvalues."""
    ranks: np.ndarray
    """(len(dims), O): r(ε) of K'_c."""
    reference_ranks: np.ndarray
    """(O,): r(ε) of K_c."""

    def __str__(self) -> str:
        lines = [f"{'dimensions':>10}{'kernel error':>14}{'spectrum error':>16}{'mean rank':>11}"]
        for row, dim in enumerate(self.dims):
            errors = self.kernel_errors[row].mean(), self.spectrum_errors[row].mean()
            lines.append(f"{dim:>10}{errors[0]:>14.4f}{errors[1]:>16.4f}{self.ranks[row].mean():>11.1f}")
        return "\n".join([*lines, f"{'reference':>10}{'':>30}{self.reference_ranks.mean():>11.1f}"])


def parameter_redundancy(
    features: Array, dims: Any, reference: Array | None = None, share: float = 0.05
) -> ParameterRedundancy:
    """How well K_c is kept by its projection to k' dimensions, for several k'.

    The first k' of k columns, times √(k/k'), are a projection to k' of the same kind, if its columns are drawn
    independently of one another, as Gaussian and Rademacher ones are. So no further gradients are needed.

    Parameters
    ----------
    features : array (m, O, k)
    dims : integers
        k', each from 1 to k.
    reference : array (O, m, m), optional
        K_c without any projection, ``ntkest.ntk(J, outputs=c)``; default: those of all k dimensions.
    share : float
        ε of the truncation ranks.

    Returns
    -------
    ParameterRedundancy
        For O·m²·Σk' multiplications, and the eigenvalues of O kernels for each k'.

    Raises
    ------
    InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError, ZeroKernelError
    """
    xp = check_features(features)
    share, size = checked_share("share", share), unit(xp, features)
    count, outputs, k = (int(n) for n in features.shape)
    sizes = _checked_dims(dims, k)
    if reference is not None:
        check_beside(reference, features, "reference=")
        if tuple(reference.shape) != (outputs, count, count):
            raise ShapeError(f"reference= takes kernels {(outputs, count, count)}, not {tuple(reference.shape)}")
    rows, ranks = [], []
    for c in range(outputs):
        phi = of_class(xp, features, c, size)
        exact = phi @ phi.T if reference is None else xp.astype(reference[c, ...], phi.dtype) / size**2
        spectrum = _eigenvalues(xp, exact)
        norm = number(xp.linalg.vector_norm(exact))
        ranks.append(truncation_rank(spectrum, share))
        for dim in sizes:
            fewer = phi[:, :dim] @ phi[:, :dim].T * (k / dim)
            found = _eigenvalues(xp, fewer)
            error = number(xp.linalg.vector_norm(fewer - exact)), np.linalg.norm(found - spectrum)
            rows.append((*(e / norm if norm else 0.0 for e in error), truncation_rank(found, share)))
    table = np.asarray(rows).reshape(outputs, len(sizes), 3).transpose(2, 1, 0)
    return ParameterRedundancy(sizes, table[0], table[1], table[2].astype(int), np.asarray(ranks))


def _checked_dims(dims: Any, k: int) -> tuple[int, ...]:
    found = np.atleast_1d(np.asarray(dims))
    if found.ndim != 1 or found.size == 0 or found.dtype.kind not in "iu":
        raise InvalidTypeError(f"dims= takes numbers of dimensions, not {dims!r}")
    if found.min() < 1 or found.max() > k:
        raise InvalidValueError(f"dims= takes numbers from 1 to the {k} dimensions that features have, not {dims!r}")
    return tuple(int(dim) for dim in found)


def _eigenvalues(xp: ModuleType, K: Array) -> np.ndarray:
    found: np.ndarray = np.maximum(numbers(xp.linalg.eigvalsh(K))[::-1], 0)
    return found
