"""What each estimator would cost: a pilot of a few passes, a forecast from it, and a stopwatch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .columns import aligned
from .estimators import BY_EXAMPLE, ESTIMATORS, EXACT, Estimator, Problem
from .estimators.applied import pull, push
from .estimators.perexample import probe_bytes
from .estimators.sketches import LeaveOneOut, dimension, most_samples
from .inference import Quantity, effective_rank_of, frobenius_norm_of, trace_of
from .linearization import InvalidTypeError, InvalidValueError, Linearization, UnsupportedModeError, number
from .memory import size_text
from .outlook import CONFIDENCE, ENDLESS, FORMS, SKETCH, error_of, samples_for, spectra_of
from .probes import check_seed
from .quantities import pose

QUANTITIES: Mapping[str, Callable[[int], Quantity]] = {
    "trace": trace_of,
    "frobenius_norm": frobenius_norm_of,
    "effective_rank": effective_rank_of,
}

PILOT = 8
"""Samples of the pilot, two passes each."""

TIMED = 4
"""Further passes in each mode to compile, and again as many against the stopwatch."""

KEPT: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "reverse": ((0, 0), (0, 1)),
    "forward": ((0, 0), (1, 0)),
    "reverse-by-example": ((0, 0), (0, 0)),
    "hutchinson": ((0, 1), (1, 1)),
    "hutch++": ((1, 0), (1.5, 1)),
    "hutch++jv": ((1, 0), (1.5, 1)),
    "nystrom++": ((0.5, 0.5), (0.5, 0.5)),
}
"""Vectors that a sample keeps, of outputs and of parameters: for traces alone, and with norms. Sketches know theirs."""


@dataclass(frozen=True)
class Prospect:
    """What one estimator is expected to need."""

    method: str
    passes: int
    """From the start, without the pilot."""
    seconds: float
    """For passes only, compiled, as timed in the pilot."""
    bytes: int
    """Kept beside the model, within ``memory=``."""
    reached: bool
    """Whether the tolerance is within its reach."""


@dataclass(frozen=True)
class Prospects(Mapping[str, Prospect]):
    """A `Prospect` for each method, the cheapest first; prints as a table."""

    prospects: Mapping[str, Prospect]
    quantity: str
    rtol: float
    passes: int
    """AD passes that the pilot took."""
    effective_rank: float
    """As the pilot saw it."""

    def __getitem__(self, method: str) -> Prospect:
        return self.prospects[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.prospects)

    def __len__(self) -> int:
        return len(self.prospects)

    @property
    def best(self) -> Prospect:
        """The one with the fewest passes that reaches the tolerance."""
        return next(iter(self.prospects.values()))

    def __str__(self) -> str:
        head = f"{self.quantity} to {100 * self.rtol:g} %, from a pilot of {self.passes} passes"
        rows = [("method", "passes", "seconds", "memory")]
        rows += [
            (p.method, f"{p.passes}" if p.reached else "out of reach", f"{p.seconds:.3g}", size_text(p.bytes))
            for p in self.prospects.values()
        ]
        return "\n".join([head, f"effective rank about {self.effective_rank:.3g}", "", *aligned(rows)])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {
            "quantity": self.quantity,
            "rtol": self.rtol,
            "passes": self.passes,
            "effective_rank": self.effective_rank,
            "methods": {name: vars(prospect) for name, prospect in self.prospects.items()},
        }


def plan(
    J: Linearization,
    rtol: float = 0.05,
    *,
    quantity: str = "trace",
    seed: int = 0,
    centered: bool | str = False,
    memory: int | str = "2GB",
    chunk: int | None = None,
) -> Prospects:
    """What each method would cost to bring a quantity within `rtol`: passes, seconds and bytes.

    Parameters
    ----------
    J : Linearization
        With both modes.
    rtol : float
        Half-width of the 95 % interval, relative to the value.
    quantity : "trace", "frobenius_norm" or "effective_rank"
    seed, centered, memory, chunk
        As in `ntkest.quantities`.

    Returns
    -------
    Prospects
        Cost: 32 passes, of which 8 are timed. Passes are forecast from the spectrum that the pilot sees, good to a
        factor of about 2 where the tail goes on like it; seconds are those of the passes, without compilation.

    Raises
    ------
    InvalidValueError, InvalidTypeError, UnsupportedModeError

    References
    ----------
    `ntkest.forecast` for the forecast and its sources.
    """
    if isinstance(rtol, bool) or not isinstance(rtol, int | float):
        raise InvalidTypeError(f"rtol= takes a positive number, not {rtol!r}")
    if not 0 < rtol < math.inf:
        raise InvalidValueError(f"rtol= takes a positive number, not {rtol}")
    if quantity not in QUANTITIES:
        raise InvalidValueError(f"quantity= takes one of {', '.join(QUANTITIES)}, not {quantity!r}")
    # the pilot looks at the norm too, at no further pass
    problem = pose(J, [QUANTITIES[quantity](0)], centered=centered, memory=memory, chunk=chunk)
    if not (problem.has("vjp") and problem.has("jvp")):
        raise UnsupportedModeError(
            "plan needs both VJPs and JVPs for its pilot; with one mode there is one method anyway"
        )
    if not dimension(problem):
        raise InvalidValueError("centring leaves nothing of a single output, so there is nothing to plan")
    seed = check_seed(seed)
    both = pose(J, [effective_rank_of(0)], centered=centered, memory=memory, chunk=chunk)
    if SKETCH.samples(both, ENDLESS) < min(PILOT, most_samples(both)):
        raise InvalidValueError(f"memory={both.memory} bytes have no room for the {PILOT} samples of a pilot")
    state = SKETCH.extend(both, None, SKETCH.draw(both, seed, 0, PILOT))
    spectra = spectra_of(both, SKETCH, state)
    seconds = _seconds(both, state)
    found = []
    for name, estimator in ESTIMATORS.items():
        if name not in FORMS or (estimator is BY_EXAMPLE and not BY_EXAMPLE.offered(problem)):
            continue
        if spectra:
            samples = samples_for(problem, spectra, estimator, rtol / CONFIDENCE)
            reached = error_of(problem, spectra, estimator, samples) <= rtol / CONFIDENCE
        else:  # the pilot has all of the kernel: so would they
            samples, reached = estimator.first, True
        if estimator is BY_EXAMPLE and BY_EXAMPLE.all_units(problem) in range(samples + 1):
            reached = True  # exact
        found.append(_prospect(problem, estimator, samples, reached, seconds))
    exact = EXACT.passes(problem)
    mode = EXACT.mode(problem)
    found.append(Prospect(EXACT.name, exact, EXACT.cost(problem) * seconds[mode], _exact_bytes(problem, mode), True))
    found.sort(key=lambda p: (not p.reached, p.passes))
    if spectra:
        rank = spectra[0].trace ** 2 / spectra[0].square
    elif most_samples(both) == 1:  # one image, and that is zero
        rank = 0.0
    else:
        moments = SKETCH.moments(both, state)
        trace, square = (number(moments[key, 0].value[0]) for key in ("trace", "square"))
        rank = trace**2 / square if square else 0.0
    return Prospects({p.method: p for p in found}, quantity, rtol, both.passes, rank)


def _prospect(
    problem: Problem, estimator: Estimator, samples: int, reached: bool, seconds: Mapping[str, float]
) -> Prospect:
    passes = estimator.passes(problem, samples)
    vjps, jvps = _modes(problem, estimator, samples, passes)
    kept: tuple[float, float] = (
        estimator.kept(problem) if isinstance(estimator, LeaveOneOut) else KEPT[estimator.name][problem.wants("square")]
    )
    outputs, parameters = kept
    itemsize = problem.kernels[0].J.xp.finfo(problem.kernels[0].J.outputs.dtype).bits // 8
    size = samples * itemsize * (outputs * problem.size + parameters * problem.parameters(0))
    if estimator is BY_EXAMPLE and problem.wants("square"):
        size = min(samples * probe_bytes(problem), problem.memory)
    if estimator.name in ("reverse", "forward", "hutchinson"):  # windows
        size = min(size, problem.memory)
    return Prospect(estimator.name, passes, vjps * seconds["vjp"] + jvps * seconds["jvp"], int(size), reached)


def _modes(problem: Problem, estimator: Estimator, samples: int, passes: int) -> tuple[float, float]:
    """How many of the passes are VJPs, and JVPs."""
    if estimator.modes == {"vjp"}:
        return passes, 0
    if estimator.modes == {"jvp"}:
        return 0, passes
    if isinstance(estimator, LeaveOneOut):
        vjps, jvps = estimator.split(problem)
        share = vjps / (vjps + jvps)
    else:
        share = {"hutch++": 3 / 5, "hutch++jv": 3 / 4}.get(estimator.name, 1 / 2)
    return share * passes, (1 - share) * passes


def _seconds(problem: Problem, state: Any) -> dict[str, float]:
    """Of a pass in each mode, compiled."""
    xp = problem.xp
    rows = state.probes[:TIMED, :]
    blocks = pull(problem, 0, rows)
    runs: dict[str, Callable[[], Sequence[Any]]] = {
        "vjp": lambda: pull(problem, 0, rows),
        "jvp": lambda: push(problem, 0, blocks),
    }
    times = {}
    for mode, run in runs.items():
        number(xp.sum(run()[0][0, :]))
        start = time.perf_counter()
        number(xp.sum(run()[0][0, :]))
        times[mode] = (time.perf_counter() - start) / rows.shape[0]
    return times


def _exact_bytes(problem: Problem, mode: str) -> int:
    itemsize = problem.kernels[0].J.xp.finfo(problem.kernels[0].J.outputs.dtype).bits // 8
    if not problem.wants("square"):
        return 0
    return int(min(problem.size * problem.parameters(0) * itemsize, problem.memory))
