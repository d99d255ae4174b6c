"""The exact NTK between examples, full or reduced over outputs."""

from __future__ import annotations

import math
from typing import Any

from ..linearization import (
    Array,
    InvalidTypeError,
    Linearization,
    ShapeError,
    UnsupportedModeError,
    beside,
    checked_examples,
    identity,
)
from ..tangents import group_parameters
from .contraction import Block
from .groups import group_kernels
from .reductions import Reduction, reduction


def ntk(
    J: Linearization, other: Linearization | None = None, outputs: Any = "full", *, by: str | None = None, seed: int = 0
) -> Any:
    """The exact neural tangent kernel K = J Jᵀ between the examples of J, or J J'ᵀ between those of J and another J'.

    Parameters
    ----------
    J : Linearization
        With examples that do not interact; see ``batch_axis=`` of `ntkest.linearize`.
    other : Linearization, optional
        Of the same function at the same parameters, on other inputs.
    outputs : "full", "trace", "sum", "signs:s", int or array (O,)
        All O × O entries for each pair of examples; their trace over O; vᵀ K v for the vector v of ones, for one
        output, for a given vector, or averaged over s vectors of random signs over √O.
    by : "layer" or "parameter", optional
        A kernel for each, in a dict; they sum to the whole.
    seed : int
        Of the signs.

    Returns
    -------
    array (N·O, N'·O), O fastest, or (N, N')
        In the namespace, on the device and in the dtype of the outputs; with `by`, a dict of such.
        Costs O reverse passes for "full" and "trace", s for signs, else 1; and the products, which for dense layers
        are taken in factors. Differentiable where the linearization is.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, UnsupportedModeError

    References
    ----------
    Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023.
    """
    wanted = reduction(outputs, _size(J), seed)
    groups = group_parameters(J.param_names, by)
    sides = [J] if other is None else [J, _checked(J, other)]
    images = [_images(side, wanted) for side in sides]
    totals = group_kernels(J, images[0], images[-1], groups, wanted.full, len(wanted.cotangents))
    kernels = [J.xp.astype(_arranged(J.xp, total), J.outputs.dtype, copy=False) for total in totals]
    return dict(zip(groups.names, kernels, strict=True)) if groups.names else kernels[0]


def pntk(J: Linearization, other: Linearization | None = None, *, by: str | None = None) -> Any:
    """The pseudo-NTK: the kernel of the sum of an example's outputs over √O, (N, N'), which stands in for K = K̂ ⊗ I.

    ``ntk(J, other, outputs="sum")`` over O; see there. For a wide readout at initialisation its relative error falls
    as width^(-1/2).

    References
    ----------
    Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023.
    """
    size = _size(J)
    kernels = ntk(J, other, "sum", by=by)
    return kernels / size if by is None else {name: kernel / size for name, kernel in kernels.items()}


def _size(J: Linearization) -> int:
    """O."""
    if not hasattr(J, "examples"):
        raise InvalidTypeError(f"a linearization is wanted (see ntkest.linearize), not {type(J).__name__}")
    _, count = checked_examples(J.examples)
    return int(math.prod(J.outputs.shape)) // count


def _checked(J: Linearization, other: Linearization) -> Linearization:
    if _size(other) != _size(J):
        raise ShapeError(f"examples have {_size(J)} outputs on one side and {_size(other)} on the other")
    mine, theirs = ([tuple(p.shape) for p in side.params] for side in (J, other))
    if mine != theirs:
        raise ShapeError("the two linearizations have different parameters")
    return other


def _images(J: Linearization, wanted: Reduction) -> tuple[Block, ...]:
    """Gradients (k, N, P_l) of all examples, one a cotangent, in factors where they come so."""
    map_example_vjp: Any = getattr(J, "map_example_vjp", None)
    if map_example_vjp is None or "vjp" not in J.modes:
        raise UnsupportedModeError("the kernel between examples needs gradients of single examples, and this has none")
    xp, (axis, count) = J.xp, checked_examples(J.examples)
    shape = tuple(J.outputs.shape)
    own = (*shape[:axis], 1, *shape[axis + 1 :])
    cotangents = xp.reshape(beside(xp, wanted.cotangents, J.outputs, J.outputs.dtype), (-1, *own))
    k = cotangents.shape[0]
    whole = xp.reshape(xp.broadcast_to(cotangents, (k, *shape)), (k, -1))
    uses: Any = getattr(J, "uses", None)
    found: tuple[Block, ...] = map_example_vjp(identity, whole) if uses is None else uses(whole, 0, count)
    return found


def _arranged(xp: Any, kernel: Array) -> Array:
    """(n·k, n'·k') of (k, n, k', n')."""
    if len(kernel.shape) == 2:
        return kernel
    k, n, others, there = kernel.shape
    return xp.reshape(xp.permute_dims(kernel, (1, 0, 3, 2)), (n * k, there * others))
