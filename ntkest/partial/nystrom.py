"""Nyström++ for partial traces: the dominant directions exactly, and what they leave by forward probes.

With an orthonormal Q (P×k) that captures the range of JᵀΩ, and Π = 1 − QQᵀ, both on the side of the parameters,
K = (JQ)(JQ)ᵀ + (JΠ)(JΠ)ᵀ, and so for each block a of outputs

    tr K_aa = ‖(JQ)_a‖_F² + E‖(J Π v)_a‖².

The first term is the block trace of the Nyström approximation of K with the sketch Ω. Given Q each entry is unbiased,
and it is exact to rounding where k reaches the rank. Costs k VJPs and k + l JVPs, for l probes v; keeps k·P numbers.
Prefer it unless K is nearly flat.

Reference: Persson, Cortinovis, Kressner, "Improved variants of the Hutch++ algorithm for trace estimation", SIAM J.
Matrix Anal. Appl. 2022, section 3 (Nyström++), for traces of whole matrices, there with a two-sided remainder. By
blocks, and one-sided, it rests on K = J Jᵀ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from ..estimate import FLOOR
from ..linearization import Array, Blocks, accumulator, beside, identity
from ..probes import SKETCH, cotangent_expander, draw_cotangents, draw_tangents, tangent_expander
from ..tallskinny import orthonormalise, separate
from .statistics import Spread
from .task import BlockSquares, Gathered, Task


@dataclass(frozen=True)
class State:
    """The directions, what is known of them, and the samples of the rest."""

    bases: tuple[Blocks, ...]
    """For each part, Qᵀ as blocks (k, P_l) of its parameters."""
    known: Array
    """(parts, n): ‖(JQ)_a‖_F²."""
    spread: Spread | None = None


@dataclass(frozen=True)
class NystromPP:
    """For l samples, k columns of Ω."""

    name: str = "nystrom++"
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    first: int = 8
    steady: bool = False

    def passes(self, task: Task, samples: int) -> int:
        """One VJP for each of k columns, and for each part the JVPs of Q and of l probes."""
        k = columns(task, samples)
        per_jvp = int(task.kernel.J.passes_per_jvp)
        return k + per_jvp * sum(min(k, most) for most in _most_columns(task)) + samples * task.jvp_passes

    def growth(self, task: Task, have: int, want: int) -> int:
        """Passes from `have` to `want` samples: Q is extended, and what is left of all probes measured anew."""
        return self.passes(task, want) - self.passes(task, have) + have * task.jvp_passes

    def extend(self, task: Task, state: State | None, have: int, want: int) -> State:
        """Extend Q, then sample the remainder."""
        state = self._directions(task, state, columns(task, have) if state else 0, columns(task, want))
        return replace(state, spread=self._remainder(task, state, want))

    def _directions(self, task: Task, state: State | None, have: int, want: int) -> State:
        """Columns have … want-1 of Ω, pulled back, made orthonormal to Q and to each other, and pushed."""
        if state is not None and want == have:
            return state
        problem, kernel, J, xp = task.problem, task.kernel, task.kernel.J, task.xp
        bits = draw_cotangents(J, task.seed, have, want, SKETCH)
        expand = cotangent_expander(J, problem.exponents[0], problem.centre)
        pulled = kernel.map_vjp(identity, bits, expand, want - have)
        reduce = BlockSquares(xp, task.layout, problem.centre)
        bases, known = [], []
        for part, (blocks, most) in enumerate(zip(task.parts, _most_columns(task), strict=True)):
            old = None if state is None else state.bases[part]
            held = 0 if old is None else old[0].shape[0]
            room = most - held
            columns = tuple(pulled[block][: min(room, want - have), :] for block in blocks)
            if room == 0:
                assert old is not None
                assert state is not None
                bases.append(old)
                known.append(state.known[part, :])
                continue
            new = problem.compiled(directions, xp, held)(old, columns)
            tangents = _tangents(task, blocks, new)
            squares = kernel.map_jvp(reduce, tangents, None, new[0].shape[0])
            sums = xp.sum(squares, axis=0, dtype=accumulator(xp, squares))
            bases.append(new if old is None else tuple(xp.concat(pair, axis=0) for pair in zip(old, new, strict=True)))
            known.append(sums if state is None else state.known[part, :] + sums)
        return State(tuple(bases), xp.stack(known, axis=0))

    def _remainder(self, task: Task, state: State, count: int) -> Spread | None:
        """Samples of what is left by Q, of probes 0 … count-1 in windows that fit in the memory budget."""
        problem, kernel, J, xp = task.problem, task.kernel, task.kernel.J, task.xp
        reduce = BlockSquares(xp, task.layout, problem.centre)
        expand = kernel.compile(tangent_expander(J, 0))
        project = problem.compiled(complement, xp)
        step = min(task.window(), max(1, problem.memory // (4 * _bytes(task))))
        spread = None
        for start in range(0, count, step):
            stop = min(start + step, count)
            v = expand(draw_tangents(J, task.seed, start, stop))
            parts = []
            for blocks, basis in zip(task.parts, state.bases, strict=True):
                rest = project(basis, tuple(v[block] for block in blocks))
                parts.append(kernel.map_jvp(reduce, _tangents(task, blocks, rest), None, stop - start))
            spread = task.gather(spread, xp.stack(parts, axis=1))
        return spread

    def gathered(self, task: Task, state: State) -> Gathered:
        """What Q holds, and the means of the rest."""
        xp = task.xp
        known = task.problem.whole_and_parts(state.known, 0)
        known = xp.concat([known, xp.sum(known, axis=1, keepdims=True)], axis=1)
        return Gathered(known, state.spread, floor=2 * FLOOR)  # JQ takes more steps than a single image


NYSTROM = NystromPP()


def columns(task: Task, samples: int) -> int:
    """The number k for l samples: as many, if their images fit in a quarter of the memory budget."""
    return min(samples, max(1, task.problem.memory // (4 * _bytes(task))))


def _bytes(task: Task) -> int:
    """Bytes of one vector of parameters, in double precision at most."""
    return 8 * task.problem.parameters(0)


def _most_columns(task: Task) -> list[int]:
    """For each part, the largest rank that its kernel can have, but at least 1."""
    problem = task.problem
    outputs = problem.size if problem.centre is None else problem.centre.rank
    sizes = [math.prod(p.shape) for p in task.kernel.J.params]
    return [max(1, min(outputs, sum(sizes[block] for block in blocks))) for blocks in task.parts]


def _tangents(task: Task, blocks: tuple[int, ...], rows: Blocks) -> Blocks:
    """Rows on the blocks of a part as tangents of all parameters, scaled and in their dtypes; zero elsewhere."""
    xp, scale, count = task.xp, 2.0 ** -task.problem.exponents[0], rows[0].shape[0]
    given = dict(zip(blocks, rows, strict=True))
    return tuple(
        xp.astype(given[block] if scale == 1 else given[block] * scale, p.dtype, copy=False)
        if block in given
        else beside(xp, np.zeros((count, math.prod(p.shape)), np.float32), rows[0], p.dtype)
        for block, p in enumerate(task.kernel.J.params)
    )


def directions(xp: ModuleType, have: int, old: Blocks | None, columns: Blocks) -> Blocks:
    """Orthonormal rows, orthogonal to the `have` rows of `old`, that extend it by `columns`; array-only."""
    return orthonormalise(xp, separate(xp, columns, have), old)[0]


def complement(xp: ModuleType, basis: Blocks, rows: Blocks) -> Blocks:
    """Rows without their components in the basis; array-only."""
    rows = tuple(xp.astype(row, q.dtype, copy=False) for row, q in zip(rows, basis, strict=True))
    inner: Any = sum(row @ q.T for row, q in zip(rows, basis, strict=True))
    return tuple(row - inner @ q for row, q in zip(rows, basis, strict=True))
