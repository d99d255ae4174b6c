"""One AD mode is enough: a JVP shows all blocks at once, a VJP one block.

For block a of the outputs let J_a be its rows of J, and K_aa = J_a J_aᵀ. With sign probes

* forward: tr K_aa = E‖(Jv)_a‖², for all blocks from the same pass, at a variance of
  2(‖K_aa‖_F² − Σ_j (J_aᵀJ_a)_jj²) ≤ 2 tr(K_aa)² a probe;
* reverse: tr K_aa = E‖Jᵀω_a‖², where ω_a is zero outside the block: a pass a block and probe, at a variance of
  2(‖K_aa‖_F² − Σ_{i∈a} K_ii²). Blocks of one output have none: that is how `exact` computes the diagonal.

Reference: Hazelden, "Fast neural tangent kernel alignment, norm and effective rank via trace estimation",
arXiv:2511.10796, for the traces of whole kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, beside
from ..probes import SignCotangents, cotangent_expander, draw_cotangents, draw_tangents, tangent_expander
from .layout import Layout
from .statistics import Spread
from .task import BlockSquares, Gathered, Task


@dataclass(frozen=True)
class Forward:
    """A pass a probe (and part); the samples of all blocks at once."""

    name: str = "forward"
    modes: frozenset[str] = frozenset({"jvp"})
    first: int = 16
    steady: bool = True

    def passes(self, task: Task, samples: int) -> int:
        """A JVP a probe and part."""
        return samples * task.jvp_passes

    def growth(self, task: Task, have: int, want: int) -> int:
        """Passes from `have` to `want` probes."""
        return self.passes(task, want - have)

    def extend(self, task: Task, state: Spread | None, have: int, want: int) -> Spread | None:
        """Push probes have … want-1 through, in windows that bound the samples kept."""
        problem, kernel = task.problem, task.kernel
        reduce = BlockSquares(task.xp, task.layout, problem.centre)
        step = task.window()
        for start in range(have, want, step):
            stop = min(start + step, want)
            bits = draw_tangents(task.kernel.J, task.seed, start, stop)
            parts = []
            for blocks in task.parts:
                only = frozenset(blocks) if problem.groups.names else None
                expand = tangent_expander(task.kernel.J, problem.exponents[0], only)
                parts.append(kernel.map_jvp(reduce, bits, expand, stop - start))
            state = task.gather(state, task.xp.stack(parts, axis=1))
        return state

    def gathered(self, task: Task, state: Spread) -> Gathered:
        """Means over probes."""
        return Gathered(spread=state)


@dataclass(frozen=True)
class Reverse:
    """A pass a probe and block; parts come for free."""

    name: str = "reverse"
    modes: frozenset[str] = frozenset({"vjp"})
    first: int = 16
    steady: bool = True

    def passes(self, task: Task, samples: int) -> int:
        """A VJP a probe and block."""
        return samples * task.layout.count

    def growth(self, task: Task, have: int, want: int) -> int:
        """Passes from `have` to `want` probes."""
        return self.passes(task, want - have)

    def extend(self, task: Task, state: Spread | None, have: int, want: int) -> Spread | None:
        """Push probes have … want-1 through, each cut to one block after the other."""
        problem, kernel, n, xp = task.problem, task.kernel, task.layout.count, task.xp
        expand = BlockCotangents(cotangent_expander(task.kernel.J, problem.exponents[0]), task.layout, problem.centre)
        reduce = problem.parameter_norms(0)
        step = task.window()
        for start in range(have, want, step):
            m = min(step, want - start)
            bits = draw_cotangents(task.kernel.J, task.seed, start, start + m)
            probe = beside(xp, np.repeat(np.arange(m), n), task.kernel.J.outputs, xp.int32)
            block = beside(xp, np.tile(np.arange(n), m), task.kernel.J.outputs, xp.int32)
            norms = kernel.pull(reduce, (xp.take(bits, probe, axis=0), block), expand, m * n)
            state = task.gather(state, xp.permute_dims(xp.reshape(norms, (m, n, -1)), (0, 2, 1)))
        return state

    def gathered(self, task: Task, state: Spread) -> Gathered:
        """Means over probes."""
        return Gathered(spread=state)


@dataclass(frozen=True)
class BlockCotangents:
    """Expands packed signs and block numbers, (c, ⌈M/8⌉) and (c,), to signs that are zero outside the block."""

    signs: SignCotangents
    layout: Layout
    centre: Any

    def __call__(self, probes: tuple[Array, Array]) -> Array:
        """Expand a chunk."""
        bits, block = probes
        xp: ModuleType = self.signs.xp
        rows = self.signs(bits)
        owner = beside(xp, self.layout.owners(), block)
        rows = rows * xp.astype(owner[None, :] == block[:, None], rows.dtype)
        return rows if self.centre is None else self.centre(xp, rows)


FORWARD, REVERSE = Forward(), Reverse()
