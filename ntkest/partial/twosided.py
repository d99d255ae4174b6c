"""The textbook estimator of a diagonal, ω∘Kω: a VJP and a JVP a probe.

Its error in entry i is what the rest of row i of K makes, with a variance of Σ_{j≠i} K_ij²; for block traces
ω_aᵀ(Kω)_a, with a variance of 2(‖K_aa‖_F² − Σ_{i∈a} K_ii²) + Σ_{i∈a, j∉a} K_ij². Prefer it where K is nearly diagonal,
hence has an effective rank of some M/2 or more; elsewhere `forward` is more precise at half the passes.

Reference: Bekas, Kokiopoulou, Saad, "An estimator for the diagonal of a matrix", Appl. Numer. Math. 2007; with signs
its denominators are all the number of probes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from ..estimators.applied import apply_kernel
from ..linearization import Array, scalar_dtype
from ..probes import cotangent_expander, draw_cotangents
from .layout import Layout
from .statistics import Spread
from .task import Gathered, Task


@dataclass(frozen=True)
class TwoSided:
    """Two passes a probe, and a JVP more for each further part."""

    name: str = "hutchinson"
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    first: int = 16
    steady: bool = True

    def passes(self, task: Task, samples: int) -> int:
        """A VJP a probe, and a JVP for each part."""
        return samples * (1 + task.jvp_passes)

    def growth(self, task: Task, have: int, want: int) -> int:
        """Passes from `have` to `want` probes."""
        return self.passes(task, want - have)

    def extend(self, task: Task, state: Spread | None, have: int, want: int) -> Spread | None:
        """Push probes have … want-1 through, as many at a time as have images that fit in the memory budget."""
        problem, xp = task.problem, task.xp
        expand = cotangent_expander(task.kernel.J, 0)
        products = problem.compiled(_products, xp, task.layout)
        step = min(
            task.window(), max(1, problem.memory // (32 * (problem.parameters(0) + problem.rows * problem.size)))
        )
        for start in range(have, want, step):
            bits = draw_cotangents(task.kernel.J, task.seed, start, min(start + step, want))
            images = apply_kernel(problem, 0, bits)[1]
            images = images[1:] if problem.groups.names else images
            state = task.gather(state, products(task.kernel.compile(expand)(bits), images))
        return state

    def gathered(self, task: Task, state: Spread) -> Gathered:
        """Means over probes; a sample may be negative."""
        return Gathered(spread=state, signed=True)


def _products(xp: ModuleType, layout: Layout, omega: Array, images: tuple[Array, ...]) -> Array:
    """Sums over blocks of ω∘Kω, (m, parts, n); array-only."""
    working = scalar_dtype(xp, omega)
    wide = xp.astype(omega, working, copy=False)
    return xp.stack([layout.sums(xp, wide * xp.astype(image, working, copy=False)) for image in images], axis=1)


TWO_SIDED = TwoSided()
