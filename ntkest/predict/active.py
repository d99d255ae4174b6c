"""Which examples to label next: greedy batches from the posterior of a kernel, in closed form.

With some examples labelled, let R be the posterior covariance of all (the kernel less what the labelled ones explain).
Labelling i changes predictions by R_:i (y_i - f_i)/(R_ii + λ) and, whatever the label, the covariance by
-R_:i R_i:/(R_ii + λ). So a batch is chosen one by one, each choice as if those before had been labelled already.

References: Mohamadi, Bae, Sutherland, "Making look-ahead active learning strategies feasible with neural tangent
kernels", NeurIPS 2022 (look-ahead with a linearised network); Seo, Wallat, Graepel, Obermayer, "Gaussian process
regression: active data selection and test point rejection", IJCNN 2000 (posterior variance, and its mean).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, InvalidTypeError, InvalidValueError, accumulator, beside, number
from .factors import cholesky
from .pivoted import take_rows
from .systems import as_targets, check_kernel, checked_ridge

METHODS = ("variance", "mean-variance", "look-ahead")


def select_batch(
    K: Any, labelled: Any, count: int, ridge: float, *, method: str = "variance", targets: Any = None
) -> np.ndarray:
    """The examples whose labels would tell most, greedily.

    Parameters
    ----------
    K : array (N, N)
        The kernel of all examples, labelled or not; pNTK for example.
    labelled : array of int (n,)
        Indices of those that have labels, none or more.
    count : int
        How many to choose.
    ridge : float
        λ, positive: the variance of the labels' noise, as the fit has it.
    method : "variance", "mean-variance" or "look-ahead"
        Choose the example with the largest posterior variance; the one that lowers the variance of all others most; or
        the one whose most likely label would change the predictions for all others most.
    targets : array (n,) or (n, O), or integer labels (n,), optional
        Of the labelled ones, in their order; needed for "look-ahead". A single output has labels ±1.

    Returns
    -------
    array of int (count,)
        Indices, in the order of choice. n³/3 + N²·n multiplications once, and N² an example chosen.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError
    """
    xp = check_kernel(K)
    if method not in METHODS:
        raise InvalidValueError(f"method= takes one of {', '.join(METHODS)}, not {method!r}")
    ridge, known = checked_ridge(ridge, positive=True), _indices(labelled, K.shape[0])
    if isinstance(count, bool) or not isinstance(count, int):
        raise InvalidTypeError(f"count= takes a positive integer, not {count!r}")
    if not 0 < count <= K.shape[0] - len(known):
        raise InvalidValueError(
            f"count={count} is to be positive, and there are {K.shape[0] - len(known)} to choose from"
        )
    wide = xp.astype(K, accumulator(xp, K), copy=False)
    left, mean = _posterior(xp, wide, known, ridge, _labels(xp, wide, known, method, targets))
    free = np.ones(K.shape[0], dtype=bool)
    free[known] = False
    chosen: list[int] = []
    for _ in range(count):
        gain = _gains(xp, left, mean, free, ridge, method)
        best = int(number(xp.argmax(xp.where(beside(xp, free, gain, xp.bool), gain, -xp.ones_like(gain)))))
        column = left[:, best : best + 1]
        shrink = left[best, best] + ridge
        if mean is not None:
            mean = mean + column @ (_likely(xp, mean[best : best + 1, :]) - mean[best : best + 1, :]) / shrink
        left = left - column @ column.T / shrink
        free[best] = False
        chosen.append(best)
    return np.array(chosen)


def _posterior(
    xp: ModuleType, K: Array, known: np.ndarray, ridge: float, y: Array | None
) -> tuple[Array, Array | None]:
    """Covariance (N, N) and mean (N, O) with the known ones labelled."""
    if not len(known):
        return K, None
    cross = take_rows(xp, K, known)  # (n, N)
    factor = cholesky(xp, take_rows(xp, cross.T, known), ridge)
    white = factor.whiten(cross)
    return K - white.T @ white, None if y is None else cross.T @ factor.solve(y)


def _gains(xp: ModuleType, left: Array, mean: Array | None, free: np.ndarray, ridge: float, method: str) -> Array:
    """What labelling each example is worth, (N,)."""
    variance = xp.linalg.diagonal(left)
    if method == "variance":
        return variance
    others = beside(xp, free, left)  # (N,) ones for those without a label
    spread = xp.sum(left * left * others[:, None], axis=0) - variance**2 * others
    if method == "mean-variance":
        return spread / (variance + ridge)
    surprise = xp.sum((_likely(xp, mean) - mean) ** 2, axis=1)
    return spread * surprise / (variance + ridge) ** 2


def _likely(xp: ModuleType, mean: Array | None) -> Array:
    """The most likely labels of predictions (n, O), as centred one-hot rows; of one output its nearer sign."""
    assert mean is not None
    if mean.shape[1] == 1:
        return xp.where(mean >= 0, xp.ones_like(mean), -xp.ones_like(mean))
    best = xp.argmax(mean, axis=1)[:, None] == beside(xp, np.arange(mean.shape[1]), mean, xp.int32)[None, :]
    return xp.astype(best, mean.dtype) - 1 / mean.shape[1]


def _labels(xp: ModuleType, K: Array, known: np.ndarray, method: str, targets: Any) -> Array | None:
    if (targets is not None) != (method == "look-ahead"):
        raise InvalidValueError(
            "targets= are for method='look-ahead', which needs them; variances do not depend on them"
        )
    if targets is None:
        return None
    if not len(known):
        raise InvalidValueError("method='look-ahead' needs some labelled examples; start with method='variance'")
    y = as_targets(xp, targets, K, len(known))
    if y.shape[0] != len(known) or len(y.shape) > 2:
        raise InvalidValueError(f"{len(known)} examples are labelled, and targets have shape {tuple(y.shape)}")
    return xp.reshape(xp.astype(y, K.dtype), (len(known), -1))


def _indices(labelled: Any, count: int) -> np.ndarray:
    found = np.asarray(labelled if isinstance(labelled, list | tuple | range) else np.asarray(labelled).tolist())
    found = found.astype(int) if found.size == 0 else found
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InvalidTypeError(f"labelled examples are given by their indices, not {labelled!r}")
    if found.size and (found.min() < 0 or found.max() >= count or len(np.unique(found)) < len(found)):
        raise InvalidValueError(f"labelled examples are different ones of {count}; got {labelled!r}")
    return found
