"""Random projections of the gradients of a model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from array_api_compat import is_writeable_array

from ..linearization import Array, device
from ..memory import byte_count
from ..progress import progress_of
from .planning import Plan
from .posing import Question, posed


def project(
    J: Any,
    dim: int,
    kind: str = "rademacher",
    seed: int = 0,
    *,
    memory: int | str = "1GB",
    out: Any = None,
    client: Any = None,
    force: bool = False,
    progress: Any = None,
) -> Any:
    """Random features of the gradients of each output of each example, g = Qᵀφ/√dim with φ_no = ∇_θ f_o(x_n).

    Inner products of features are those of gradients, the entries of the full kernel, without bias and with errors
    of about ‖φ‖ ‖φ'‖ / √dim. Q is drawn again in tiles wherever one is needed and never stored; its numbers depend on
    the seed alone.

    Parameters
    ----------
    J : Linearization
        With examples that do not interact; see ``batch_axis=`` of `ntkest.linearize`. From `linearize_batches` it is
        read batch by batch.
    dim : int
        The number of features, at most the number of parameters.
    kind : "rademacher", "gaussian" or "sjlt"
        What Q holds: random signs, normal numbers, or a few signs a row and else zeros, which is much the cheapest with
        gradients that do not come in factors.
    seed : int
    memory : int or str
        Bytes for gradients and products, beside the model and the features themselves. Features do not depend on it but
        for rounding.
    out : path, optional
        A zarr store to be written piece by piece, so that the features are never in memory whole. Pieces that are
        finished stay so, whatever happens; the same call goes on where an earlier one was stopped, and ends with the
        same bytes. What is there of another projection is refused.
    client : dask.distributed.Client or concurrent.futures.Executor, optional
        Workers to compute pieces. They build the linearization themselves: `J` is then a factory, which is a function
        without arguments that can be imported, or its name, "module:function" or "file.py:function", and returns a
        linearization or what `linearize` takes. `memory` is for each task, and features that do not go to `out` are a
        NumPy array.
    force : bool
        Begin anew, in place of the projection at `out`.
    progress : bool or callable
        True for a line on standard error, or a function of the pieces done and the pieces in all: ranges of examples,
        or of columns of Q with forward mode.

    Returns
    -------
    array (N, O, dim)
        In the namespace, on the device and in the dtype of the outputs, or in float32 if that is shorter;
        with `out`, as a `zarr.Array` to be read.

        Costs O reverse passes and the products with Q, in factors where that is cheaper; or dim forward passes, where
        there is no reverse mode or that is cheaper still.

    Raises
    ------
    InvalidTypeError, InvalidValueError, UnsupportedModeError
    NonFiniteError
        Features of some examples, which it names, are NaN or infinite.
    StoreError
        `out` holds another projection or is damaged, or the disk is full.
    WorkerError
        A worker died, or its factory made another model than that of the others.

    References
    ----------
    Achlioptas, "Database-friendly random projections", J. Comput. Syst. Sci. 2003 (signs); Kane and Nelson, "Sparser
    Johnson-Lindenstrauss transforms", J. ACM 2014.
    """
    budget, report = byte_count(memory), progress_of(progress, "pieces")
    if client is not None:
        from ..kernels.store import as_path  # imported where they are needed: they bring a part of the standard library
        from .farm import farmed, job_of

        path = None if out is None else as_path(out)
        return farmed(client, job_of(J, dim, kind, seed), budget, path, force, report)
    question = posed(J, dim, kind, seed)
    if out is not None:
        from ..kernels.store import as_path
        from .streaming import streamed

        return streamed(question, as_path(out), budget, force, report)
    return assembled(question, question.plan(budget, False), report)


def assembled(question: Question, plan: Plan, report: Callable[[int, int], None]) -> Array:
    """All features in memory, in place where arrays can be written to."""
    xp, ranges = question.J.xp, plan.ranges()
    pieces: list[Array] = []
    whole: Any = None
    for done, (span, piece) in enumerate(question.pieces(plan, ranges), 1):
        if len(ranges) == 1:
            whole = piece
        elif is_writeable_array(piece):
            if whole is None:
                whole = xp.empty(plan.shape, dtype=piece.dtype, device=device(piece))
            whole[plan.part(span)] = piece
        else:
            pieces.append(piece)
        report(done, len(ranges))
    return xp.concat(pieces, axis=plan.axis) if pieces else whole
