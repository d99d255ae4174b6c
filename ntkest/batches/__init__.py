"""Many batches as one linearization, streamed: one batch's computation is alive at a time."""

from __future__ import annotations

from typing import Any

from ..linearization import InvalidTypeError, Linearization, Options
from .linearized import BatchedLinearization
from .stream import Stream, reiterable

__all__ = ["linearize_batches"]


def linearize_batches(
    target: Any,
    *args: Any,
    inputs: Any = None,
    output: Any = None,
    params: Any = None,
    batch_axis: int | str | None = "auto",
    backend: str | None = None,
    check: bool = True,
    copy: bool = False,
    differentiable: bool = False,
    keep: bool = False,
) -> Linearization:
    """The Jacobian of a model on all batches of a data set, as if they had been one batch.

    Two forms, as for `linearize`: ``linearize_batches(module, batches)`` and ``linearize_batches(f, params, batches)``.
    `batches` is read again in every pass (and once here), and each batch is linearized anew then, so that only
    one is in memory; with ``keep=True`` all are kept, which is faster where they fit.

    Parameters
    ----------
    target : module or callable
        As for `linearize`.
    *args
        ``(batches,)`` for a module, ``(params, batches)`` for a function. `batches` is a list, a torch DataLoader, or
        anything that can be iterated more than once and gives the same batches in the same order each time.
    inputs : str, int or callable, optional
        What of a batch the model takes: a key, an index, or a function of the batch. What that gives, or the batch
        itself, becomes positional arguments if it is a tuple or list, keyword arguments if it is a mapping, and else
        the one argument. (``inputs=0`` for a loader of ``(x, y)``.)
    output, params, backend, check, differentiable
        As for `linearize`. Checks are made on the first batch, and that it comes first again.
    batch_axis : "auto", int or None
        Axis of the outputs along which batches are put together. "auto" takes the one along which the examples
        of the first batch were seen not to interact. None puts batches end to end along axis 0 (scalars become one
        axis) and does not ask whether examples interact within a batch.
    copy : bool
        As for `linearize`; implies `keep`.
    keep : bool
        Keep the linearization of every batch.

    Returns
    -------
    Linearization
        With outputs of all batches along the batch axis: M is the sum over batches. A JVP or VJP is one pass over all
        batches, and without `keep` one more forward (a linearization) of each, shared by the probes of a chunk.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        `batches` is a generator or an array, or is empty.
    InteractingExamplesError
        "auto" found no axis of independent examples in the first batch.
    NotRepeatableError
        Batches differ from those that came before (``shuffle=True``, random augmentation); also raised by later calls.
    StaleLinearizationError
        Raised by later calls if the parameters were changed in the meantime.
    """
    if not callable(target):
        raise InvalidTypeError(f"linearize_batches takes a module or a function, not {type(target).__name__}")
    if len(args) not in (1, 2):
        raise InvalidTypeError(
            "call linearize_batches(module, batches) or linearize_batches(f, params, batches); got "
            f"{len(args)} arguments after the model"
        )
    options = Options(output, params, batch_axis, check, copy, differentiable)
    return BatchedLinearization(Stream(target, args[:-1], reiterable(args[-1]), inputs, backend, options), keep or copy)
