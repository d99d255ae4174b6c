"""Kernel ridge regression and the Gaussian process behind it: one factorisation of the kernel, and all it can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..linearization import Array, ShapeError, number
from .factors import Factor, Spectral, cholesky, spectral
from .leaveout import LeftOut, best_ridge, left_out, rounding_floor
from .systems import System, as_system, checked_ridge


@dataclass(frozen=True)
class KernelRidge:
    """A kernel fitted to targets; made by `kernel_ridge`.

    Arrays that go in belong to the kernel's namespace and device, and so do those that come out, in its dtype.
    """

    ridge: float
    """λ, absolute. As a Gaussian process: the variance of the noise."""
    coefficients: Array
    """(K + λI)⁻¹ Y, in the shape of the targets."""
    _system: System = field(repr=False)
    _factor: Factor = field(repr=False)
    _alpha: Array = field(repr=False)

    def predict(self, cross: Any) -> Array:
        """Predictions k α for other examples: the fit, and the posterior mean of the Gaussian process.

        Parameters
        ----------
        cross : array (N', N) or (N'·O, N·O)
            The kernel between other examples and those of the fit, ``ntkest.pntk(J_other, J)`` for example.

        Returns
        -------
        array (N', …), in the shape of the targets
        """
        return self._system.arranged(self._system.crossed(cross) @ self._alpha)

    def variance(self, cross: Any, diagonal: Any) -> Array:
        """The posterior variance of f at other examples, without the noise λ of an observation there.

        Parameters
        ----------
        cross : array (N', N) or (N'·O, N·O)
        diagonal : array (N',) or (N'·O,)
            The kernel of each of the other examples with itself.

        Returns
        -------
        array (N',), common to all outputs, or (N', …) for the full kernel
        """
        system, rows = self._system, self._system.crossed(cross)
        system.check_like(diagonal, "the diagonal")
        if tuple(diagonal.shape) != (rows.shape[0],):
            raise ShapeError(f"the diagonal has shape ({rows.shape[0]},), like the rows of cross, not {diagonal.shape}")
        white = self._factor.whiten(rows.T)
        found = system.wide(diagonal) - system.xp.sum(white * white, axis=0)
        found = system.xp.where(found > 0, found, system.xp.zeros_like(found))
        if system.block == 1:
            return system.xp.astype(found, system.dtype, copy=False)
        return system.arranged(found)

    def covariance(self, cross: Any, prior: Any) -> Array:
        """The posterior covariance of f at other examples.

        Parameters
        ----------
        cross : array (N', N) or (N'·O, N·O)
        prior : array (N', N') or (N'·O, N'·O)
            The kernel of the other examples.

        Returns
        -------
        array of the shape of prior
        """
        system, rows = self._system, self._system.crossed(cross)
        system.check_like(prior, "the kernel of the other examples")
        if tuple(prior.shape) != (rows.shape[0], rows.shape[0]):
            raise ShapeError(f"the kernel of the other examples has as many rows as cross, {rows.shape[0]}")
        white = self._factor.whiten(rows.T)
        return system.xp.astype(system.wide(prior) - white.T @ white, system.dtype, copy=False)

    def solve(self, values: Any) -> Array:
        """(K + λI)⁻¹ applied to values in the shape of the targets."""
        return self._system.arranged(self._factor.solve(self._system.placed(values, self._system.count)))

    def left_out(self) -> LeftOut:
        """Predictions for each example by a fit to all others, in closed form."""
        return left_out(self._system, self._factor, self._alpha)

    def log_likelihood(self) -> float:
        """Log density of the targets under the Gaussian process with noise λ, summed over outputs.

        References
        ----------
        Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equation 2.30.
        """
        system = self._system
        m, columns = system.values.shape
        fit = number(system.xp.sum(system.values * self._alpha))
        return -0.5 * float(fit + columns * (number(self._factor.logdet()) + m * math.log(2 * math.pi)))


def kernel_ridge(K: Any, targets: Any, ridge: float | str = "loo") -> KernelRidge:
    """Fit f = Σ_i k(·, x_i) α_i to targets, with α = (K + λI)⁻¹ Y.

    That is ridge regression on the tangent features J, and the posterior of a Gaussian process with covariance K and
    noise λ. The mean before the data is zero; for a network's own outputs f₀, fit Y - f₀ and add f₀ afterwards, as
    `gradient_flow` does.

    Parameters
    ----------
    K : array (N, N) or (N·O, N·O), O fastest
        A kernel that all outputs share, K̂ ⊗ I_O (`ntkest.pntk`), or the full one (`ntkest.ntk`).
    targets : array (N,) or (N, O), or integer labels (N,)
        Labels stand for one-hot rows less 1/O.
    ridge : "loo" or float
        λ, absolute; or what is best when examples are left out one at a time, in squared error.

    Returns
    -------
    KernelRidge
        With a number for the ridge, m³/3 multiplications for m rows of K; with "loo" an eigendecomposition, about
        9 m³, and m²·b for each of some forty candidates, b = m/N. In float64 where the device has it.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError

    References
    ----------
    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.2 and 5.4.2.
    """
    system, wide = as_system(K, targets)
    factor: Factor
    if isinstance(ridge, str) and ridge == "loo":
        eigenvalues, vectors = spectral(system.xp, wide)
        chosen = best_ridge(system, vectors, eigenvalues, rounding_floor(system.xp, K, eigenvalues[-1]))
        factor = Spectral(vectors, eigenvalues, chosen)
    else:
        chosen = checked_ridge(ridge)
        factor = cholesky(system.xp, wide, chosen)
    alpha = factor.solve(system.values)
    return KernelRidge(chosen, system.arranged(alpha), system, factor, alpha)
