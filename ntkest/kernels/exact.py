"""The exact NTK between examples, full or reduced over outputs."""

from __future__ import annotations

from typing import Any

from ..linearization import Linearization
from ..memory import byte_count
from ..progress import progress_of
from .assembly import assembled
from .posing import posed
from .tiles import planned


def ntk(
    J: Any,
    other: Any = None,
    outputs: Any = "full",
    *,
    by: str | None = None,
    seed: int = 0,
    memory: int | str = "2GB",
    progress: Any = False,
    out: Any = None,
    force: bool = False,
    client: Any = None,
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
    out : path, optional
        A zarr store to be written, tile by tile, so that the kernel is never in memory whole. Tiles that are finished
        stay so, whatever happens; the same call goes on where an earlier one was stopped, and ends with the same bytes.
        What is there of another kernel is refused. With `by` it becomes a group with an array for each.
    force : bool
        Begin anew, in place of the kernel at `out`.
    client : dask.distributed.Client or concurrent.futures.Executor, optional
        Workers to compute tiles. They build the linearizations themselves: `J` and `other` are then factories, which
        are functions without arguments that can be imported, or their names, "module:function" or "file.py:function",
        and return a linearization or what `linearize` takes. `memory` is for each task, and kernels that do not go to
        `out` are NumPy arrays.

    Returns
    -------
    array (N·O, N'·O), O fastest, or (N, N')
        In the namespace, on the device and in the dtype of the outputs, or in float32 if that is shorter; with `out`,
        as a `zarr.Array` to be read; with `by`, a dict of such.

        Costs O reverse passes for "full" and "trace", s for signs, else 1, and more where `memory` is short; and the
        products, which for dense layers are taken in factors, for the symmetric half only. Differentiable where the
        linearization is.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, UnsupportedModeError
    NonFiniteError
        Gradients of some examples, which it names, are NaN or infinite.
    StoreError
        `out` holds another kernel or is damaged, or the disk is full.
    WorkerError
        A worker died, or its factory made another model than that of the others.

    References
    ----------
    Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023.
    """
    budget, report = byte_count(memory), progress_of(progress, "tiles")
    if client is not None:
        from .farm import farmed, job_of  # imported where they are needed: they bring a part of the standard library
        from .store import as_path

        job = job_of(J, other, outputs, by, seed)
        names, kernels = farmed(client, job, budget, None if out is None else as_path(out), force, report)
        return dict(zip(names, kernels, strict=True)) if by is not None else kernels[0]
    question = posed(J, other, outputs, by, seed)
    if out is not None:
        from .store import as_path
        from .streaming import streamed

        kernels = streamed(question, as_path(out), budget, force, report)
    else:
        plan = planned(question.shape, len(question.sides) == 1, question.cost(budget), budget, False)
        kernels = assembled(question.work(plan), question.dtype, report)
    return dict(zip(question.groups.names, kernels, strict=True)) if by is not None else kernels[0]


def pntk(J: Linearization, other: Linearization | None = None, **keywords: Any) -> Any:
    """The pseudo-NTK: the kernel of the sum of an example's outputs over √O, (N, N'), which stands in for K = K̂ ⊗ I.

    ``ntk(J, other, "pntk")``, with the keywords of that. For a wide readout at initialisation its relative error falls
    as width^(-1/2).

    References
    ----------
    Mohamadi, Bae, Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023.
    """
    return ntk(J, other, "pntk", **keywords)
