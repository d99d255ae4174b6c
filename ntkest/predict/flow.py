"""Linearised training in closed form: gradient flow on the squared error, for a finite time or to its end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..linearization import Array, InvalidTypeError, InvalidValueError
from .factors import spectral
from .leaveout import rounding_floor
from .systems import System, as_system, with_values


@dataclass(frozen=True)
class GradientFlow:
    """The training of a linearised network, at all times; made by `gradient_flow`.

    Time is in units of learning rate × steps, for the loss ½ Σ (f - y)² summed over examples and outputs: where a
    training loop averages over N·O numbers, t of its time is t/(N·O) of this one.
    """

    _system: System = field(repr=False)
    """Its values are y - f₀."""
    _vectors: Array = field(repr=False)
    _eigenvalues: Array = field(repr=False)
    _floor: float = field(repr=False)
    _targets: Array = field(repr=False)

    def outputs(self, time: float = math.inf) -> Array:
        """f(t) = y + e^(-Kt) (f₀ - y) on the training examples, in the shape of the targets."""
        inside = self._vectors.T @ self._system.values
        left = self._decay(_checked_time(time))[:, None] * inside
        return self._system.arranged(self._targets - self._vectors @ left)

    def predict(self, cross: Any, time: float = math.inf, initial: Any = None) -> Array:
        """f(t) = f₀ + k K⁻¹ (I - e^(-Kt)) (y - f₀) on other examples.

        Parameters
        ----------
        cross : array (N', N) or (N'·O, N·O)
            The kernel between other examples and those of training.
        time : float
            Not negative; infinity for the end of training.
        initial : array (N', …), optional
            The network's outputs f₀ on the other examples; None for zero.

        Returns
        -------
        array (N', …), in the shape of the targets
        """
        system, rows, time = self._system, self._system.crossed(cross), _checked_time(time)
        inside = self._vectors.T @ system.values
        found = rows @ (self._vectors @ (self._reached(time)[:, None] * inside))
        if initial is not None:
            found = found + system.placed(initial, rows.shape[0] // system.block)
        return system.arranged(found)

    def _decay(self, time: float) -> Array:
        """e^(-λt)."""
        xp, kept = self._system.xp, self._kept
        return xp.where(kept, xp.exp(-time * self._safe), xp.ones_like(self._eigenvalues))

    def _reached(self, time: float) -> Array:
        """(1 - e^(-λt))/λ."""
        xp, kept = self._system.xp, self._kept
        return xp.where(kept, -xp.expm1(-time * self._safe) / self._safe, xp.zeros_like(self._eigenvalues))

    @property
    def _kept(self) -> Array:
        """Which directions move: the others have an eigenvalue of zero to rounding, and no part in any row of k."""
        return self._eigenvalues > self._floor

    @property
    def _safe(self) -> Array:
        return self._system.xp.where(self._kept, self._eigenvalues, self._system.xp.ones_like(self._eigenvalues))


def gradient_flow(K: Any, targets: Any, initial: Any = None) -> GradientFlow:
    """What a linearised network becomes when it is trained by gradient flow on ½ Σ (f - y)².

    At infinite time that is kernel regression without a ridge, started from the network's own outputs f₀.
    Directions in which K is zero to rounding are never learnt, and keep their f₀.

    Parameters
    ----------
    K : array (N, N) or (N·O, N·O), O fastest
        As for `kernel_ridge`.
    targets : array (N,) or (N, O), or integer labels (N,)
        As for `kernel_ridge`.
    initial : array of the shape of the targets, optional
        The network's outputs f₀ on these examples, ``J.outputs``; None for zero.

    Returns
    -------
    GradientFlow
        For one eigendecomposition, about 9 m³ multiplications for m rows of K; any time afterwards costs products.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError

    References
    ----------
    Jacot, Gabriel, Hongler, "Neural tangent kernel: convergence and generalization in neural networks", NeurIPS 2018;
    Lee, Xiao, Schoenholz, Bahri, Novak, Sohl-Dickstein, Pennington, "Wide neural networks of any depth evolve as linear
    models under gradient descent", NeurIPS 2019, equations 10 and 11.
    """
    system, wide = as_system(K, targets)
    aims = system.values
    if initial is not None:
        system = with_values(system, aims - system.placed(initial, system.count))
    eigenvalues, vectors = spectral(system.xp, wide)
    floor = rounding_floor(system.xp, K, eigenvalues[-1])
    return GradientFlow(system, vectors, eigenvalues, floor, aims)


def _checked_time(time: Any) -> float:
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise InvalidTypeError(f"time= takes a number that is not negative, or infinity, not {time!r}")
    if not time >= 0:
        raise InvalidValueError(f"time= takes a number that is not negative, or infinity, not {time!r}")
    return float(time)
