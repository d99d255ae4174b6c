"""The kernels of classes, and their mean."""

from __future__ import annotations

from ..linearization import Array
from .features import check_features, of_class


def class_kernels(features: Array) -> Array:
    """K_c = Φ_c Φ_cᵀ for every class; blocks between classes are left out.

    Parameters
    ----------
    features : array (m, O, k)

    Returns
    -------
    array (O, m, m), in float64 where the device has it
        For O·m²·k multiplications.

    Raises
    ------
    InvalidTypeError, NonDifferentiableError, NonFiniteError, ShapeError
    """
    xp = check_features(features)
    rows = (of_class(xp, features, c) for c in range(features.shape[1]))
    return xp.stack([phi @ phi.T for phi in rows], axis=0)


def mean_kernel(features: Array, scale: float = 1.0) -> Array:
    """The mean of K_c over classes; all of them agree with it in which examples are alike.

    Parameters
    ----------
    features : array (m, O, k)
    scale : float
        What features are divided by first.

    Returns
    -------
    array (m, m), in float64 where the device has it
        For O·m²·k multiplications, one class in memory at a time.

    Raises
    ------
    InvalidTypeError, NonDifferentiableError, NonFiniteError, ShapeError
    """
    xp = check_features(features)
    total = 0.0
    for c in range(features.shape[1]):
        phi = of_class(xp, features, c, scale)
        total = total + phi @ phi.T
    return total / features.shape[1]
