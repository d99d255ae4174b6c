"""Ridge regression with a linearised network of any size: K is applied, a JVP after a VJP, and never formed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ..linearization import (
    Array,
    Blocks,
    InvalidTypeError,
    Linearization,
    ShapeError,
    UnsupportedModeError,
    accumulator,
    scalar_dtype,
)
from .gradients import Solution, conjugate_gradients
from .ridge import KernelRidge
from .systems import as_targets, checked_ridge


@dataclass(frozen=True)
class LinearizedRidge:
    """A linearised network f₀ + J w fitted to targets; made by `linearized_ridge`."""

    ridge: float
    """λ, absolute."""
    weights: Blocks
    """w = Jᵀα, what is added to the parameters: one array (P_l,) a block."""
    coefficients: Array
    """α = (K + λI)⁻¹ (y - f₀), in the shape of the outputs."""
    residuals: tuple[float, ...]
    """‖(y - f₀) - (K + λI) α‖/‖y - f₀‖, before each iteration and after the last."""
    converged: bool
    """Whether the last of them is at most the tolerance."""
    passes: int
    """AD passes in all."""
    _from_outputs: bool = field(repr=False)

    def predict(self, J: Linearization) -> Array:
        """f₀ + J w on other examples, in the shape of the outputs of J. One JVP.

        Parameters
        ----------
        J : Linearization
            Of the same function at the same parameters, on other inputs.
        """
        _check_linearization(J)
        if [math.prod(p.shape) for p in J.params] != [w.shape[0] for w in self.weights]:
            raise ShapeError("J has other parameters than the linearization that was fitted")
        tangents = tuple(
            J.xp.astype(w, p.dtype, copy=False)[None, :] for w, p in zip(self.weights, J.params, strict=True)
        )
        change = J.xp.reshape(J.jvp(tangents), J.outputs.shape)
        return J.outputs + change if self._from_outputs else change


def linearized_ridge(
    J: Linearization,
    targets: Any,
    ridge: float,
    *,
    initial: bool = True,
    preconditioner: KernelRidge | None = None,
    rtol: float = 1e-4,
    max_iterations: int = 1000,
) -> LinearizedRidge:
    """Kernel ridge regression with the full NTK, by conjugate gradients.

    Minimises ‖f₀ + J w - y‖² + λ‖w‖² over w, as `kernel_ridge` with ``ntkest.ntk(J)`` does, without the kernel: for
    models on which K, (N·O)², is too large.

    Parameters
    ----------
    J : Linearization
        With both modes. Examples may interact.
    targets : array of the shape of the outputs, or integer labels (N,)
        Labels stand for one-hot rows less 1/O.
    ridge : float
        λ, positive and absolute. The number of iterations grows as √((λ₁ + λ)/λ).
    initial : bool
        Whether predictions start from the network's own outputs f₀; if not, the fit is J w alone.
    preconditioner : KernelRidge, optional
        A fit with a kernel (N, N) that stands in for the full one, as ``kernel_ridge(ntkest.pntk(J), targets, ridge)``:
        K̂ ⊗ I has most of K's large eigenvalues, and takes them away.
    rtol : float
        Of the residual, relative to y - f₀.
    max_iterations : int

    Returns
    -------
    LinearizedRidge
        A VJP and a JVP an iteration, and one VJP at the end; a prediction is one JVP.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonFiniteError, NonDifferentiableError
    UnsupportedModeError
        J lacks one of the modes.

    References
    ----------
    For conjugate gradients see `conjugate_gradients`; for preconditioning of kernel ridge regression, Díaz, Epperly,
    Frangella, Tropp, Webber, "Robust, randomized preconditioning for kernel ridge regression", 2023 (arXiv 2304.12465).
    """
    _check_linearization(J)
    if not {"jvp", "vjp"} <= set(J.modes):
        raise UnsupportedModeError(f"K is applied as a VJP and a JVP, but J has {', '.join(sorted(J.modes))} only")
    xp, shape, ridge = J.xp, tuple(J.outputs.shape), checked_ridge(ridge, positive=True)
    y = as_targets(xp, targets, J.outputs, math.prod(shape))
    if tuple(y.shape) != shape:
        raise ShapeError(f"targets have shape {tuple(y.shape)}, the outputs {shape}")
    working = scalar_dtype(xp, J.outputs)
    aims = xp.astype(y, accumulator(xp, J.outputs))
    aims = aims - xp.astype(J.outputs, aims.dtype) if initial else aims
    aims = xp.reshape(xp.astype(aims, working, copy=False), (-1, 1))

    def apply(values: Array) -> Array:
        image = J.jvp(J.vjp(xp.astype(values.T, J.outputs.dtype, copy=False)))
        return xp.astype(image.T, working, copy=False) + ridge * values

    found = conjugate_gradients(
        apply,
        aims,
        preconditioner=None if preconditioner is None else _Preconditioner(xp, preconditioner, shape),
        rtol=rtol,
        max_iterations=max_iterations,
    )
    pulled = J.vjp(xp.astype(found.values.T, J.outputs.dtype, copy=False))
    return LinearizedRidge(
        ridge,
        tuple(block[0, :] for block in pulled),
        xp.reshape(found.values, shape),
        found.residuals,
        found.converged,
        _passes(J, found),
        initial,
    )


@dataclass(frozen=True)
class _Preconditioner:
    """(K̂ + λI)⁻¹ ⊗ I on columns (M, 1)."""

    xp: ModuleType
    fit: KernelRidge
    shape: tuple[int, ...]

    def __call__(self, values: Array) -> Array:
        return self.xp.astype(
            self.xp.reshape(self.fit.solve(self.xp.reshape(values, self.shape)), (-1, 1)), values.dtype, copy=False
        )


def _passes(J: Linearization, found: Solution) -> int:
    return found.iterations * (1 + J.passes_per_jvp) + 1


def _check_linearization(J: Any) -> None:
    if not hasattr(J, "jvp") or not hasattr(J, "outputs"):
        raise InvalidTypeError(f"a linearization is wanted (see ntkest.linearize), not {type(J).__name__}")
