"""Exact moments from the kernel between examples, where gradients of single examples come in factors.

With D outputs an example, D passes give the gradients of all, and products of factors all D × D blocks of K, tile by
tile, where rows of J would take a pass each and all parameters for every product. Where traces alone are wanted, the
gradients' norms suffice, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.images import Images, item_bytes
from ..kernels.reductions import Reduction
from ..kernels.tiles import Cost, Plan, Work, planned
from ..linearization import Array, InvalidValueError, scalar_dtype
from ..tangents import Groups
from .perexample import all_traces
from .problem import Key, Moment, Problem, whole_and_parts


class ByKernel:
    """One way to exact traces, norms and products; see `Exact`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.units = problem.size // problem.kernels[0].J.examples[1]  # type: ignore[index]
        """D."""
        self.plan: Plan | None = None
        if problem.pairs:
            self.sides = [_images(problem, a, self.units) for a in problem.indices]
            self.plan = _planned(problem, self.sides)

    def passes(self) -> int:
        """D a kernel, and as many more as gradients of examples are made again."""
        return len(self.problem.kernels) * self._each()

    def cost(self) -> int:
        """`passes`, and what products of gradients take as passes: M² s / 2 multiplications to 2 N P of a pass.

        For traces alone none; else of s numbers that a gradient in factors has, for the symmetric half.
        """
        problem, found = self.problem, self.passes()
        for a, kernel in enumerate(problem.kernels if self.plan is not None else ()):
            J: Any = kernel.J
            each = 4 * (problem.size // self.units) * problem.parameters(a)
            found += -(-(problem.size**2) * J.example_size // each)
        return int(found)

    def _each(self) -> int:
        if self.plan is None:
            return self.units
        ranges = self.plan.ranges(0)
        made = sum(ranges[j][1] - ranges[j][0] for rows in self.plan.stripes() for j in self.plan.columns(rows))
        return -(-self.units * made // self.plan.shape[0])

    def run(self) -> dict[Key, Moment]:
        """All wanted moments but those of targets."""
        problem, plan = self.problem, self.plan
        if plan is None:
            return all_traces(problem, self.units)
        reduced = Reduction(self.sides[0].cotangents, full=True)
        works = [
            Work(problem.xp, (side,), reduced, Groups(problem.groups.names, problem.part_of(a)), plan)
            for a, side in enumerate(self.sides)
        ]
        sums: dict[Key, Array] = {}
        for rows in plan.stripes():
            columns = plan.columns(rows)
            for tiles in zip(*(work.tiles(rows, columns, {}) for work in works), strict=True):
                for key, share in self._shares([found for _, found in tiles], tiles[0][0]).items():
                    sums[key] = sums[key] + share if key in sums else share
        for kernel in problem.kernels:
            kernel.n_vjp += self._each()
        return {key: Moment(total) for key, total in sums.items()}

    def _shares(self, tiles: Sequence[Sequence[Array]], place: tuple[int, int]) -> dict[Key, Array]:
        """What a tile of each kernel, and its mirror image, add to each moment, (rows,)."""
        problem, xp = self.problem, self.problem.xp
        named, diagonal = bool(problem.groups.names), place[0] == place[1]
        kernels = [whole_and_parts(xp, named, xp.stack(list(parts)), 0) for parts in tiles]
        shares = {}
        for key in problem.needs:
            if key[0] == "trace" and diagonal:
                shares[key] = xp.sum(xp.linalg.diagonal(kernels[key[1]]), axis=1)
            elif key[0] in ("square", "cross"):
                product = xp.sum(kernels[key[1]] * kernels[key[-1]], axis=(1, 2))
                shares[key] = product if diagonal else 2.0 * product
        return shares


def by_kernel(problem: Problem) -> ByKernel | None:
    """Such a way, if all kernels have what it takes, and for norms gradients in factors and the memory for them."""
    if problem.centre is not None or not problem.has("vjp"):
        return None
    kernels = [kernel.J for kernel in problem.kernels]
    if any(J.examples is None or J.examples != kernels[0].examples for J in kernels):
        return None
    if any(getattr(J, "map_example_vjp", None) is None for J in kernels):
        return None
    if not problem.pairs:
        return ByKernel(problem)
    for a, J in enumerate(kernels):
        own: Any = J
        if not (hasattr(J, "uses") or hasattr(J, "sweep_uses")) or own.example_size >= problem.parameters(a):
            return None
    try:
        return ByKernel(problem)
    except InvalidValueError:  # not even a pair of examples fits
        return None


def _images(problem: Problem, a: int, units: int) -> Images:
    return Images(problem.kernels[a].J, np.eye(units) * 2.0 ** -problem.exponents[a])


def _planned(problem: Problem, sides: Sequence[Images]) -> Plan:
    xp, count, units = problem.xp, sides[0].count, len(sides[0].cotangents)
    item = item_bytes(xp, xp.empty((0,), dtype=scalar_dtype(xp, problem.kernels[0].J.outputs)))
    sizes: list[Any] = [side.J for side in sides]
    example = item * units * max(J.example_size for J in sizes)  # no less than it is, and no pass to see it
    cost = Cost(example, item * units**2, item, problem.rows)
    return planned((count, count), True, cost, problem.memory // len(sides), False)
