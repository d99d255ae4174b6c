"""Exact partial traces from all rows of J, squared and summed by block, or from all of its columns."""

from __future__ import annotations

import math

import numpy as np

from ..estimators.exact import UnitCotangents, UnitTangents
from ..linearization import Array, accumulator, beside
from .task import BlockSquares, Gathered, Task


def exact_mode(task: Task) -> str:
    """The cheaper mode of those that the model has."""
    return min(sorted(task.kernel.J.modes, reverse=True), key=lambda mode: exact_passes(task, mode))


def exact_passes(task: Task, mode: str | None = None) -> int:
    """M VJPs or P JVPs."""
    mode = exact_mode(task) if mode is None else mode
    return task.problem.size if mode == "vjp" else task.problem.parameters(0) * int(task.kernel.J.passes_per_jvp)


def run_exact(task: Task, mode: str | None = None) -> Gathered:
    """All traces; only sums over rows or columns are kept."""
    mode = exact_mode(task) if mode is None else mode
    traces = _by_rows(task) if mode == "vjp" else _by_columns(task)
    traces = task.problem.whole_and_parts(traces, 0)
    return Gathered(known=task.xp.concat([traces, task.xp.sum(traces, axis=1, keepdims=True)], axis=1))


def _by_rows(task: Task) -> Array:
    """(parts, n), from K_ii = ‖Jᵀe_i‖²."""
    problem, J, xp = task.problem, task.kernel.J, task.xp
    index = beside(xp, np.arange(problem.size), J.outputs, xp.int32)
    expand = UnitCotangents(xp, problem.size, J.outputs.dtype, problem.exponents[0], problem.centre)
    norms = task.kernel.pull(problem.parameter_norms(0), index, expand, problem.size)
    return task.layout.sums(xp, xp.permute_dims(norms, (1, 0)))


def _by_columns(task: Task) -> Array:
    """(parts, n), from tr K_aa = Σ_j ‖(J e_j)_a‖²."""
    problem, J, xp = task.problem, task.kernel.J, task.xp
    sizes = tuple(math.prod(p.shape) for p in J.params)
    firsts = np.cumsum((0, *sizes))
    expand = UnitTangents(xp, sizes, tuple(p.dtype for p in J.params), problem.exponents[0])
    reduce = BlockSquares(xp, task.layout, problem.centre)
    step, rows = task.window(), []
    for blocks in task.parts:
        units = np.concatenate([np.arange(firsts[block], firsts[block] + sizes[block]) for block in blocks])
        total = None
        for start in range(0, len(units), step):
            some = units[start : start + step]
            index = beside(xp, some, J.params[0], xp.int32)
            squares = task.kernel.map_jvp(reduce, index, expand, len(some))
            sums = xp.sum(squares, axis=0, dtype=accumulator(xp, squares))
            total = sums if total is None else total + sums
        rows.append(total)
    return xp.stack(rows, axis=0)
