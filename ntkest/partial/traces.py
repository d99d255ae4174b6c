"""`diagonal` and `partial_trace`: how tr K is spread over examples, outputs, time steps or units.

Both take the same keywords:

axes : tuple of str, optional
    A name for each axis of the outputs, such as ``("example", "time", "unit")``, for ``over=`` and for plots.
method : str
    "auto", "exact", "forward", "reverse", "nystrom++" or "hutchinson"; see `ntkest.partial`.
rtol, atol : float
    Sample until each entry's 95 % interval has a half-width of at most rtol times the entry, or times the mean entry
    where that is larger, or at most atol; or until `max_passes` are spent.
max_passes : int
    Bound on AD passes in that search.
passes : int, optional
    A fixed cost instead of a tolerance. The form that runs under jit, grad and vmap.
seed : int
    Seed of the probes; the same seed gives the same probes on every backend.
by : None, "layer" or "parameter"
    Also estimate each part of the parameters; in ``.parts``.
centered : bool or "examples"
    Use HKH with H = I - 11ᵀ/M, or with the mean over examples only taken away.
memory : int or str
    Budget for kept samples and images, such as "2GB".
chunk : int, optional
    Probes pushed through together; the adapter's rule by default.
progress : bool or callable
    Report passes spent and expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..estimate import Estimate, Exactly, Law, ScaledChiSquare
from ..linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    NonFiniteError,
    eps,
    is_concrete,
    is_linearization,
    number,
    scalar_dtype,
)
from ..probes import check_seed
from ..quantities import chunk_used, pose, setting
from ..sampling import Plan
from .choice import METHODS, run
from .laws import ChiSquares, EntryLaw, Students
from .layout import Layout, layout_over, whole_layout
from .result import PartialTraces
from .statistics import Finish
from .task import Gathered, Task


def diagonal(J: Linearization, *, axes: Sequence[str] | None = None, **keywords: Any) -> PartialTraces:
    """The diagonal of K, in the shape of the outputs: K_ii = ‖∂f_i/∂θ‖², the squared gradient norm of each output.

    Parameters
    ----------
    J : Linearization
        From `linearize`, `linearize_batches` or `from_jacobian`.
    axes, **keywords
        As in `ntkest.partial.traces`.

    Returns
    -------
    PartialTraces
        Unbiased entries that sum to the trace. Cost: min(M, P) passes for "exact"; m for "forward", with a relative
        standard error of about √(2/m) in every entry; 2k + l for "nystrom++", much less on decaying spectra.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, UnsupportedModeError, NonFiniteError

    References
    ----------
    Bekas, Kokiopoulou, Saad, Appl. Numer. Math. 2007, for "hutchinson"; Persson, Cortinovis, Kressner, SIMAX 2022, for
    Nyström++.
    """
    _check(J)
    return _measure(J, whole_layout(J, axes), **keywords)


def partial_trace(
    J: Linearization, over: int | str | Sequence[int | str], *, axes: Sequence[str] | None = None, **keywords: Any
) -> PartialTraces:
    """Traces of diagonal blocks of K: one for each index along the axes `over`, summed over all other axes.

    Parameters
    ----------
    J : Linearization
        From `linearize`, `linearize_batches` or `from_jacobian`, with outputs of a shape such as (N, T, H).
    over : int, str, or tuple of them
        The axes that index the result, by number or name: ``over="example"`` gives N traces, each of the kernel of one
        example, and ``over=(0, 2)`` an (N, H) array, in the order given. "example" is known where `linearize`
        found the examples; other names are those of `axes`.
    axes, **keywords
        As in `ntkest.partial.traces`.

    Returns
    -------
    PartialTraces
        Unbiased entries that sum to the trace. Cost for n blocks: min(M, P) passes for "exact"; m for "forward", with
        a relative standard error of at most √(2/(m r)) for a block of effective rank r; n·m for "reverse"; 2m for
        "hutchinson"; 2k + l for "nystrom++".

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, UnsupportedModeError, NonFiniteError

    References
    ----------
    As for `diagonal`.
    """
    _check(J)
    return _measure(J, layout_over(J, over, axes), **keywords)


def _check(J: Any) -> None:
    if not is_linearization(J):
        raise InvalidTypeError(f"a linearization is needed, not {type(J).__name__}; make one with ntkest.linearize")


def _measure(
    J: Linearization,
    layout: Layout,
    *,
    method: str = "auto",
    rtol: float = 0.05,
    atol: float = 0.0,
    max_passes: int = 2000,
    passes: int | None = None,
    seed: int = 0,
    by: str | None = None,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
    progress: Any = False,
) -> PartialTraces:
    if method not in METHODS:
        raise InvalidValueError(f"method= takes one of {', '.join(METHODS)}, not {method!r}")
    plan = Plan(rtol=rtol, atol=atol, max_passes=max_passes, passes=passes, seed=check_seed(seed), progress=progress)
    problem = pose(J, (), by=by, centered=centered, memory=memory, chunk=chunk)
    task = Task(problem, layout, plan.seed)

    def assess(gathered: Gathered, name: str, why: str = "", **extra: Any) -> PartialTraces:
        kernel = problem.kernels[0]
        shared = {
            "passes": kernel.passes,
            "n_jvp": kernel.n_jvp,
            "n_vjp": kernel.n_vjp,
            "method": name,
            "rtol": rtol,
            "atol": atol,
            "why": why,
        }
        about = {"seed": seed, "chunk": chunk_used(J, name, chunk), **setting(J), **extra}
        return _result(task, gathered, shared, about)

    outcome = run(task, method, plan, assess)
    extra = {"interrupted": True} if outcome.interrupted else {}
    return assess(outcome.gathered, outcome.method, outcome.why, **extra)


def _result(task: Task, gathered: Gathered, shared: dict[str, Any], about: dict[str, Any]) -> PartialTraces:
    """The whole with its parts."""
    xp, J, n, spread = task.xp, task.kernel.J, task.layout.count, gathered.spread
    floor = gathered.floor * eps(xp, J.outputs, *J.params)
    samples = 0 if spread is None else spread.count
    finish = Finish(xp, scalar_dtype(xp, J.outputs), 2.0 ** task.problem.exponents[0], floor, samples)
    arrays = task.kernel.compile(finish)(
        gathered.known, None if spread is None else spread.mean, None if spread is None else spread.squares
    )
    about = {**about, "samples": samples, "floor": floor}

    def row(which: int) -> PartialTraces:
        entries = [xp.reshape(array[which, :n], task.layout.result_shape) for array in arrays]
        value, error, *rest = (array[which, n, ...] for array in arrays)
        total = Estimate("trace", value, error, law=_total_law(rest), about=about, **shared)
        law: EntryLaw = Exactly()
        if rest:
            law = Students(samples - 1) if gathered.signed else ChiSquares(entries[2], entries[3])
        return PartialTraces(
            entries[0], entries[1], task.layout.kept, task.layout.names, total, law=law, about=about, **shared
        )

    whole = row(0)
    _check_finite(whole.total.value)
    names = task.problem.groups.names
    return replace(whole, parts={name: row(1 + part) for part, name in enumerate(names)}) if names else whole


def _total_law(rest: list[Array]) -> Law:
    """A sum over blocks is a sum of squares by every estimator, ωᵀKω too."""
    return ScaledChiSquare(rest[0], rest[1], 1.0) if rest else Exactly()


def _check_finite(total: Array) -> None:
    if is_concrete(total) and not abs(number(total)) < float("inf"):
        raise NonFiniteError(
            f"the sum of the traces is {number(total)}: it leaves the range of {total.dtype}, or a derivative is not "
            "finite; use float64, or rescale the outputs"
        )


__all__ = ["diagonal", "partial_trace"]
