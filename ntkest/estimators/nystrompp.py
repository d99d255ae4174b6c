"""Nyström++: what K does on a sketched subspace exactly, the rest by one-sided probes.

The split and its data are those of `splitting`, with k = ⌈l/2⌉ columns for l probes. A trace costs 2k + l passes, a
norm 3k + l. Prefer it to Hutch++ where norms are wanted, which it has for k passes less, or where a run will be
extended; k·P numbers are kept, and k·M.

Reference: Persson, Cortinovis, Kressner, "Improved variants of the Hutch++ algorithm for trace estimation", SIAM J.
Matrix Anal. Appl. 2022 (arXiv:2109.10659).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..probes import SKETCH, Probes, draw_cotangents
from .problem import Key, Moment, Problem
from .splitting import State, add_columns, add_probes, begin, column_cost, remainder_moments, space


@dataclass(frozen=True)
class NystromPP:
    """The estimator with a basis of half as many columns as there are probes: half of a trace's passes for each."""

    name: str = "nystrom++"
    fewest: int = 4
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    first: int = 16
    parts: bool = True
    resumable: bool = True

    def passes(self, problem: Problem, samples: int) -> int:
        """For l = `samples` and k = ⌈l/2⌉, or all of the space."""
        columns = min(_columns(samples), space(problem))
        return columns * column_cost(problem) + samples * len(problem.kernels) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """The largest l that `passes` pay for."""
        left, kernels, column = max(0, passes - problem.targets), len(problem.kernels), column_cost(problem)
        columns, most = left // (column + 2 * kernels), space(problem)
        if columns >= most:
            return (left - most * column) // kernels
        odd = 2 * columns + 1
        return odd if (columns + 1) * column + odd * kernels <= left else odd - 1

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` samples; nothing is run anew."""
        return self.passes(problem, want) - self.passes(problem, have)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Signs for the remainder and for the sketch, shared by the kernels."""
        first = problem.kernels[0].J
        signs = draw_cotangents(first, seed, start, stop)
        return Probes(cotangents=signs, sketch=draw_cotangents(first, seed, _columns(start), _columns(stop), SKETCH))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Add columns to the bases, and probes to the remainder."""
        assert probes.sketch is not None
        state = begin(problem) if state is None else state
        return add_probes(problem, add_columns(problem, state, probes.sketch), probes.cotangents)

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """The exact parts plus what the remainder averages."""
        return {**remainder_moments(problem, state), **state.targets}


NYSTROMPP = NystromPP()


def _columns(samples: int) -> int:
    """The number k of columns for l = `samples`."""
    return -(-samples // 2)
