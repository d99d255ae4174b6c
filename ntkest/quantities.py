"""The public quantities: trace, Frobenius norm, effective rank and alignment of a neural tangent kernel K = J Jᵀ.

All take the same keywords:

method : str
    "auto", "exact", "reverse", "forward", "reverse-by-example", "hutchinson", "hutch++", "hutch++jv", "nystrom++",
    "adaptive-hutch++", "xnystrace", "xtrace" or "xtrace-power"; see `ntkest.estimators`.
rtol, atol : float
    Sample until the half-width of the 95 % interval is at most rtol times the value, or at most atol, or `max_passes`
    are spent.
max_passes : int
    Bound on AD passes in that search.
passes : int, optional
    A fixed cost instead of a tolerance. The form that runs under jit, grad and vmap.
seed : int
    Seed of the probes; the same seed gives the same probes on every backend.
by : None, "layer" or "parameter"
    Also estimate each part; in ``estimate.parts``.
centered : bool or "examples"
    Use HKH with H = I - 11ᵀ/M, or with the mean over examples only taken away (as CKA does).
memory : int or str
    Budget for kept images, such as "2GB".
chunk : int, optional
    Probes pushed through together; the adapter's rule by default.
probes : Probes, optional
    Probes from `draw_probes`, instead of seed and passes: an argument of a jitted training step.
progress : bool or callable
    Report passes spent and expected.
state : bool or Run
    True keeps what was spent in ``estimate.state`` (None after an exact result). Handed to a later call on the same J
    it is carried on: `passes` and `max_passes` count from its start, and the result is, to rounding, that of one run of
    as many passes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .choice import check_resumable, sample
from .estimate import Estimate
from .estimators import ESTIMATORS, Counted, Problem
from .inference import (
    Quantity,
    alignment_of,
    effective_rank_of,
    frobenius_norm_of,
    infer,
    target_alignment_of,
    trace_of,
)
from .linearization import (
    Array,
    InvalidTypeError,
    InvalidValueError,
    Linearization,
    ShapeError,
    device,
    is_linearization,
)
from .memory import byte_count
from .probes import Centre, Probes, check_seed
from .sampling import Plan, Run
from .tangents import group_parameters
from .targets import as_target, check_same_outputs


def trace(J: Linearization, **keywords: Any) -> Estimate:
    """Tr K, the sum of the squared gradient norms of all outputs.

    Parameters
    ----------
    J : Linearization
        From `linearize`, `linearize_batches` or `from_jacobian`.
    **keywords
        As in `ntkest.quantities`.

    Returns
    -------
    Estimate
        Unbiased. ``by="layer"`` parts sum to the whole. Cost: one pass a probe for one-sided estimators, about
        2/(r·rtol²) · z² probes with r the effective rank; min(M, P) passes for "exact".

    References
    ----------
    arXiv:2511.10796 for one-sided estimators; Hutchinson 1989.
    """
    return measure(J, (trace_of(0),), **keywords)[0]


def frobenius_norm(J: Linearization, **keywords: Any) -> Estimate:
    """‖K‖_F, from products of pairs of probes.

    The square is unbiased; the root errs low by about an eighth of the square's relative variance. Keywords and costs
    as for `trace`; images of the probes are kept, within ``memory=``.
    """
    return measure(J, (frobenius_norm_of(0),), **keywords)[0]


def effective_rank(J: Linearization, **keywords: Any) -> Estimate:
    """tr(K)²/‖K‖_F², the participation ratio: between 1 and the rank; with jackknife bias correction from 16 probes on.

    Keywords and costs as for `frobenius_norm`. Raises `ZeroKernelError` where K = 0.
    """
    return measure(J, (effective_rank_of(0),), **keywords)[0]


def alignment(J: Linearization, other: Any, **keywords: Any) -> Estimate:
    """Cosine of the angle between two kernels, or between a kernel and targets, as matrices.

    Parameters
    ----------
    J : Linearization
    other : Linearization, array or integer labels
        A linearization with the same outputs (other parameters, or another architecture): ⟨K₁, K₂⟩/(‖K₁‖‖K₂‖).
        Targets y of the outputs' shape: yᵀKy/(‖y‖²‖K‖_F), whose numerator is exact with one VJP. Integer labels of the
        outputs' shape without its last axis O: one-hot minus 1/O.
    **keywords
        As in `ntkest.quantities`. ``centered=True`` with a linearization gives centred kernel alignment (CKA).

    Returns
    -------
    Estimate
        Numerator and denominator share their probes. Cost a probe: one pass a kernel.

    Raises
    ------
    ShapeError, DeviceMismatchError, ZeroKernelError
    """
    if is_linearization(other):
        check_same_outputs(J, other)
        return measure(J, (alignment_of(0, 1),), others=(other,), **keywords)[0]
    return measure(J, (target_alignment_of(0),), targets=other, **keywords)[0]


def draw_probes(
    J: Linearization, count: int, seed: int = 0, *, method: str = "reverse", other: Linearization | None = None
) -> Probes:
    """Packed sign probes for ``probes=``: a tuple of byte arrays that jitted functions take as an argument.

    `method` is the estimator they are for, `count` its number of samples; `other` is the second linearization of
    an alignment. Drawing needs the shapes of J only, so any J of the same model will do.
    """
    if method not in ESTIMATORS:
        raise InvalidValueError(f"method= takes one of {', '.join(ESTIMATORS)} here, not {method!r}")
    if isinstance(count, bool) or not isinstance(count, int):
        raise InvalidTypeError(f"count takes a positive integer, not {count!r}")
    if count < 1:
        raise InvalidValueError(f"count takes a positive integer, not {count}")
    kernels = (J,) if other is None else (J, other)
    problem = Problem.of(
        tuple(Counted(k) for k in kernels), groups=group_parameters(J.param_names, None), needs=frozenset()
    )
    return ESTIMATORS[method].draw(problem, check_seed(seed), 0, count)


def measure(
    J: Linearization,
    quantities: Sequence[Quantity],
    *,
    others: Sequence[Linearization] = (),
    targets: Any = None,
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
    probes: Probes | None = None,
    progress: Any = False,
    state: Any = False,
) -> list[Estimate]:
    """Estimate several quantities from the same probes; what all public functions call."""
    plan = Plan(method, rtol, atol, max_passes, passes, check_seed(seed), probes, progress)
    problem = pose(J, quantities, others, targets, by, centered, memory, chunk)
    kernels = problem.kernels

    def estimates(moments: Any, name: str, why: str = "", **extra: Any) -> list[Estimate]:
        result = {
            "passes": problem.passes,
            "n_jvp": sum(k.n_jvp for k in kernels),
            "n_vjp": sum(k.n_vjp for k in kernels),
            "method": name,
            "rtol": rtol,
            "atol": atol,
            "why": why,
        }
        about = {"seed": seed, "chunk": chunk_used(J, name, chunk), **setting(J), **extra}
        return [infer(problem, quantity, moments, about=about, **result) for quantity in quantities]

    run = _run(state, plan)
    if run is not None:
        run.carry_on(problem, plan)
    outcome = sample(problem, plan, estimates, run)
    extra = {"interrupted": True} if outcome.interrupted else {}
    found = estimates(outcome.moments, outcome.method, outcome.why, **extra)
    return found if state is False else [replace(e, state=outcome.run) for e in found]


def pose(
    J: Linearization,
    quantities: Sequence[Quantity],
    others: Sequence[Linearization] = (),
    targets: Any = None,
    by: str | None = None,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
) -> Problem:
    """The problem that public keywords describe, with nothing spent yet."""
    if not is_linearization(J):
        raise InvalidTypeError(f"a linearization is needed, not {type(J).__name__}; make one with ntkest.linearize")
    kernels = tuple(Counted(k, chunk) for k in (J, *others))
    groups = group_parameters(J.param_names, by)
    for k in others:
        if by is not None and group_parameters(k.param_names, by) != groups:
            raise ShapeError(f"by={by!r} needs the same parameter names in both linearizations")
    centre = centre_of(J, centered)
    target, norm = (None, None) if targets is None else as_target(kernels[0], targets, centre)
    return Problem.of(
        kernels,
        groups=groups,
        needs=frozenset(key for quantity in quantities for key in quantity.keys),
        target=target,
        target_norm=norm,
        centre=centre,
        memory=byte_count(memory),
    )


def _run(state: Any, plan: Plan) -> Run | None:
    """The run to carry on, if there is one."""
    if isinstance(state, Run):
        return state
    if state is True:
        check_resumable(plan)
    elif state is not False and state is not None:
        raise InvalidTypeError(
            f"state= takes True, to keep what is spent, or the .state of such an estimate, not {type(state).__name__}"
        )
    return None


def centre_of(J: Linearization, centered: bool | str) -> Centre | None:
    """The projector that ``centered=`` asks for."""
    shape = tuple(int(n) for n in J.outputs.shape)
    if centered is False:
        return None
    if centered is True:
        return Centre(shape, tuple(range(len(shape))))
    if centered == "examples":
        if J.examples is None:
            raise InvalidValueError(
                "centered='examples' needs to know the axis of the examples; give linearize "
                "batch_axis=, or use centered=True"
            )
        return Centre(shape, (J.examples[0],))
    raise InvalidValueError(f"centered= takes False, True or 'examples', not {centered!r}")


def chunk_used(J: Linearization, method: str, chunk: int | None) -> int:
    """Probes pushed through together, by the keyword or by the adapter's rule."""
    return chunk or J.chunk_size("jvp" if method == "forward" else "vjp", 2**30)


def setting(J: Linearization) -> dict[str, Any]:
    """dtype, device and versions, as text."""
    framework = J.xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    place = device(J.outputs)
    where = "traced" if place is None else str(place)
    loaded = {name: sys.modules.get(name) for name in ("ntkest", "numpy", framework)}
    versions = {name: getattr(module, "__version__", "unknown") for name, module in loaded.items()}
    return {"dtype": str(J.outputs.dtype), "device": where, "versions": versions}


__all__ = ["Array", "alignment", "draw_probes", "effective_rank", "frobenius_norm", "measure", "trace"]
