"""Ridge regression with the kernel of each class by itself, from s gradients and their targets.

With Φ_c (s, k) and y_c (s,), f_c(x) = φ_c(x)·w_c, and w_c is the same in two forms: Φ_cᵀ(Φ_cΦ_cᵀ + λI)⁻¹y_c, the
dual, with a system of s unknowns, and (Φ_cᵀΦ_c + λI)⁻¹Φ_cᵀy_c, the primal (Woodbury), with one of k. The predictor of
rank r has in the place of Φ_c the first r terms of its singular value decomposition.

Each Φ_c is divided first by the root of its mean squared length, so that λ means the same in every class and at every
scale of the features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import array_api_compat
import numpy as np

from ..linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    NonDifferentiableError,
    NonFiniteError,
    ShapeError,
    accumulator,
    device,
    eps,
    number,
    scalar_dtype,
)
from ..predict.factors import solve_lower, solve_upper
from ..predict.systems import check_beside, checked_ridge
from .features import check_features

FORMS = ("auto", "dual", "primal")

TOGETHER = 2**24
"""Numbers in the features, or in the kernels, of as many classes as are solved together."""


@dataclass(frozen=True)
class ClassRidge:
    """A linear function of the features for each class; made by `class_ridge`."""

    weights: Array
    """w (O, k)."""
    ridge: float
    """λ, relative to the mean diagonal of each K_c."""
    form: str
    """Which systems were solved, "dual" or "primal"."""
    rank: int | None = None
    """r, for the predictor of rank r."""

    def predict(self, features: Array) -> Array:
        """Outputs of other examples.

        Parameters
        ----------
        features : array (n, O, k)

        Returns
        -------
        array (n, O), for n·O·k multiplications

        Raises
        ------
        DeviceMismatchError, InvalidTypeError, NonDifferentiableError, NonFiniteError, ShapeError
        """
        xp = check_features(features)
        check_beside(features, self.weights, "features")
        if tuple(features.shape[1:]) != tuple(self.weights.shape):
            raise ShapeError(
                f"features of the shape (n, {self.weights.shape[0]}, {self.weights.shape[1]}) of those that were "
                f"fitted are wanted, not {tuple(features.shape)}"
            )
        rows = xp.permute_dims(xp.astype(features, self.weights.dtype, copy=False), (1, 0, 2))
        return (rows @ self.weights[:, :, None])[:, :, 0].T


def class_ridge(
    features: Array, targets: Array, ridge: float = 1e-4, form: str = "auto", rank: int | None = None
) -> ClassRidge:
    """Fit each class by ridge regression with its own kernel.

    Parameters
    ----------
    features : array (s, O, k)
    targets : array (s, O)
    ridge : float
        λ, relative to the mean diagonal of each K_c.
    form : {"auto", "dual", "primal"}
        Systems of s or of k unknowns; "auto" takes the smaller. Predictions are the same.
    rank : int, optional
        r, for the predictor of rank r: the first r principal components of Φ_c only.

    Returns
    -------
    ClassRidge
        For O·s·k·d multiplications and a Cholesky factorisation of O matrices d × d, d = s or k; with `rank` their
        eigendecomposition. In float64 where the device has it. A class without gradients gets outputs of zero.

    Raises
    ------
    DeviceMismatchError, InvalidTypeError, NonDifferentiableError, NonFiniteError, ShapeError
    InvalidValueError
        Also where a kernel with its ridge is singular to rounding, which a rank is not.
    """
    if rank is not None:
        return rank_curve(features, targets, [rank], ridge, form)[0]
    problem = _posed(features, targets, ridge, form)
    return problem.fit([_solved(problem, *group) for group in problem.groups()], None)


def rank_curve(
    features: Array, targets: Array, ranks: Sequence[int], ridge: float = 1e-4, form: str = "auto"
) -> list[ClassRidge]:
    """The predictors of several ranks, from one eigendecomposition; see `class_ridge`.

    Parameters
    ----------
    features : array (s, O, k)
    targets : array (s, O)
    ranks : list of int
        Each from 1 to min(s, k). Components that are zero to rounding are left out at any rank.
    ridge : float
    form : {"auto", "dual", "primal"}

    Returns
    -------
    list of ClassRidge

    Raises
    ------
    DeviceMismatchError, InvalidTypeError, InvalidValueError, NonDifferentiableError, NonFiniteError, ShapeError
    """
    problem = _posed(features, targets, ridge, form)
    most = min(int(features.shape[0]), int(features.shape[2]))
    for rank in ranks:
        if isinstance(rank, bool) or not isinstance(rank, int | np.integer):
            raise InvalidTypeError(f"a rank is an integer, not {rank!r}")
        if not 1 <= rank <= most:
            raise InvalidValueError(
                f"rank={rank}: {features.shape[0]} gradients in {features.shape[2]} dimensions "
                f"have ranks from 1 to {most}"
            )
    found = [_truncated(problem, *group, ranks) for group in problem.groups()]
    return [problem.fit([weights[i] for weights in found], int(rank)) for i, rank in enumerate(ranks)]


@dataclass(frozen=True)
class _Problem:
    """Checked features and targets."""

    features: Array
    targets: Array
    ridge: float
    form: str

    @property
    def xp(self) -> ModuleType:
        return array_api_compat.array_namespace(self.features)  # type: ignore[no-any-return]

    def groups(self) -> Iterator[tuple[Array, Array, Array]]:
        """Some classes at a time: Φ / size (g, s, k), y (g, s, 1) and size (g, 1, 1), wide."""
        xp, (s, outputs, k) = self.xp, self.features.shape
        step = max(1, TOGETHER // (s * max(s, k)))
        for start in range(0, outputs, step):
            part = slice(start, min(start + step, outputs))
            wide = accumulator(xp, self.features)
            phi = xp.astype(xp.permute_dims(self.features[:, part, :], (1, 0, 2)), wide)
            largest = xp.max(xp.abs(phi), axis=(1, 2), keepdims=True)
            phi = phi / xp.where(largest > 0, largest, xp.ones_like(largest))
            length = (xp.sum(phi * phi, axis=(1, 2), keepdims=True) / s) ** 0.5
            length = xp.where(largest > 0, length, xp.ones_like(length))
            yield phi / length, xp.astype(self.targets[:, part], wide).T[:, :, None], largest * length

    def fit(self, found: Sequence[Array], rank: int | None) -> ClassRidge:
        """From weights (g, k, 1) of groups of classes."""
        weights = self.xp.concat(list(found), axis=0)[:, :, 0]
        dtype = scalar_dtype(self.xp, self.features)
        return ClassRidge(self.xp.astype(weights, dtype, copy=False), self.ridge, self.form, rank)


def _posed(features: Array, targets: Array, ridge: float, form: str) -> _Problem:
    xp = check_features(features)
    check_beside(targets, features, "targets")
    if form not in FORMS:
        raise InvalidValueError(f"form= takes one of {', '.join(FORMS)}, not {form!r}")
    s, outputs, k = features.shape
    if tuple(targets.shape) != (s, outputs):
        raise ShapeError(f"features {tuple(features.shape)} go with targets {(s, outputs)}, not {tuple(targets.shape)}")
    if not xp.isdtype(targets.dtype, "real floating"):
        raise NonDifferentiableError(f"targets are the network's outputs, real numbers, not {targets.dtype}")
    if not math.isfinite(number(xp.max(xp.abs(targets)))):
        raise NonFiniteError("targets hold NaN or infinity")
    chosen = ("dual" if s <= k else "primal") if form == "auto" else form
    return _Problem(features, targets, checked_ridge(ridge), chosen)


def _system(problem: _Problem, phi: Array, y: Array) -> tuple[Array, Array]:
    """The matrices (g, d, d), and right-hand sides (g, d, 1)."""
    transposed = problem.xp.matrix_transpose(phi)
    return (phi @ transposed, y) if problem.form == "dual" else (transposed @ phi, transposed @ y)


def _restored(problem: _Problem, phi: Array, size: Array, solution: Array) -> Array:
    """Weights (g, k, 1) of features that are not divided by their size."""
    weights = problem.xp.matrix_transpose(phi) @ solution if problem.form == "dual" else solution
    return weights / problem.xp.where(size > 0, size, problem.xp.ones_like(size))


def _solved(problem: _Problem, phi: Array, y: Array, size: Array) -> Array:
    """Weights (g, k, 1)."""
    xp = problem.xp
    K, values = _system(problem, phi, y)
    empty = xp.astype(size == 0, K.dtype)  # a class without gradients, whose system may be any: its weights are 0
    shifted = K + (problem.ridge + empty) * xp.eye(K.shape[-1], dtype=K.dtype, device=device(K))
    try:
        lower = xp.linalg.cholesky(shifted)
    except (ValueError, RuntimeError) as error:  # NumPy's LinAlgError is one, torch's the other; jax gives NaN
        raise _singular(problem) from error
    if not number(xp.min(xp.linalg.diagonal(lower))) > 0:
        raise _singular(problem)
    solution = solve_upper(xp, xp.matrix_transpose(lower), solve_lower(xp, lower, values))
    return _restored(problem, phi, size, solution)


def _truncated(problem: _Problem, phi: Array, y: Array, size: Array, ranks: Sequence[int]) -> list[Array]:
    """Weights (g, k, 1) for each rank."""
    xp = problem.xp
    K, values = _system(problem, phi, y)
    eigenvalues, vectors = xp.linalg.eigh(K)  # ascending
    floor = K.shape[-1] * eps(xp, K) * eigenvalues[:, -1:]
    sound = (eigenvalues > floor) & (eigenvalues > 0)
    inverse = xp.astype(sound, K.dtype) / (xp.where(sound, eigenvalues, xp.ones_like(eigenvalues)) + problem.ridge)
    inside = inverse[:, :, None] * (xp.matrix_transpose(vectors) @ values)
    return [_restored(problem, phi, size, vectors[:, :, -rank:] @ inside[:, -rank:, :]) for rank in ranks]


def _singular(problem: _Problem) -> InvalidValueError:
    return InvalidValueError(
        f"a class kernel with ridge={problem.ridge:.3g} of its mean diagonal is singular to rounding; raise the ridge, "
        "leave out dependent gradients by rank=, or give features in float64"
    )
