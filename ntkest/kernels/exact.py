"""The exact NTK between examples, full or reduced over outputs."""

from __future__ import annotations

from typing import Any

from ..linearization import (
    Linearization,
    ShapeError,
    scalar_dtype,
)
from ..memory import byte_count
from ..progress import progress_of
from ..tangents import group_parameters
from .assembly import assembled
from .images import Images, item_bytes, outputs_each
from .reductions import reduction
from .tiles import Cost, Work, planned


def ntk(
    J: Linearization,
    other: Linearization | None = None,
    outputs: Any = "full",
    *,
    by: str | None = None,
    seed: int = 0,
    memory: int | str = "2GB",
    progress: Any = False,
) -> Any:
    """The exact neural tangent kernel K = J Jᵀ between the examples of J, or J J'ᵀ between those of J and another J'.

    Parameters
    ----------
    J : Linearization
        With examples that do not interact; see ``batch_axis=`` of `ntkest.linearize`. From `linearize_batches` it is
        read batch by batch.
    other : Linearization, optional
        Of the same function at the same parameters, on other inputs.
    outputs : "full", "trace", "sum", "signs:s", int or array (O,)
        All O × O entries for each pair of examples; their trace over O; vᵀ K v for the vector v of ones, for one
        output, for a given vector, or averaged over s vectors of random signs over √O.
    by : "layer" or "parameter", optional
        A kernel for each, in a dict; they sum to the whole.
    seed : int
        Of the signs.
    memory : int or str
        Bytes for gradients and products, beside the model and the kernel itself. A kernel that needs more is computed
        in tiles, with the same numbers to rounding.
    progress : bool or callable
        True for a line on standard error, or a function of the tiles done and the tiles in all.

    Returns
    -------
    array (N·O, N'·O), O fastest, or (N, N')
        In the namespace, on the device and in the dtype of the outputs, or in float32 if that is shorter; with `by`, a
        dict of such. Costs O reverse passes for "full" and "trace", s for signs, else 1, and more where `memory` is
        short; and the products, which for dense layers are taken in factors, for the symmetric half only.
        Differentiable where the linearization is.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, UnsupportedModeError
    NonFiniteError
        Gradients of some examples, which it names, are NaN or infinite.

    References
    ----------
    Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023.
    """
    work = _work(J, other, outputs, by, seed, memory)
    kernels = assembled(work, scalar_dtype(J.xp, J.outputs), progress_of(progress, "tiles"))
    return dict(zip(work.groups.names, kernels, strict=True)) if work.groups.names else kernels[0]


def pntk(J: Linearization, other: Linearization | None = None, **keywords: Any) -> Any:
    """The pseudo-NTK: the kernel of the sum of an example's outputs over √O, (N, N'), which stands in for K = K̂ ⊗ I.

    ``ntk(J, other, "pntk")``, with the keywords of that. For a wide readout at initialisation its relative error falls
    as width^(-1/2).

    References
    ----------
    Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023.
    """
    return ntk(J, other, "pntk", **keywords)


def _work(
    J: Linearization, other: Linearization | None, outputs: Any, by: str | None, seed: int, memory: int | str
) -> Work:
    """What the keywords ask for, in tiles that fit the budget."""
    budget = byte_count(memory)
    wanted = reduction(outputs, outputs_each(J), seed)
    groups = group_parameters(J.param_names, by)
    sides = tuple(Images(side, wanted.cotangents) for side in ([J] if other is None else [J, _checked(J, other)]))
    item = item_bytes(J.xp, J.xp.empty((0,), dtype=scalar_dtype(J.xp, J.outputs)))
    cost = Cost(
        example=max(side.example_bytes() for side in sides),
        entry=item * (len(wanted.cotangents) ** 2 if wanted.full else 1),
        item=item,
        kernels=groups.count,
    )
    shape = (sides[0].count, sides[-1].count)
    return Work(J.xp, sides, wanted, groups, planned(shape, other is None, cost, budget, False))


def _checked(J: Linearization, other: Linearization) -> Linearization:
    if outputs_each(other) != outputs_each(J):
        raise ShapeError(f"examples have {outputs_each(J)} outputs on one side and {outputs_each(other)} on the other")
    mine, theirs = ([tuple(p.shape) for p in side.params] for side in (J, other))
    if mine != theirs:
        raise ShapeError("the two linearizations have different parameters")
    return other
