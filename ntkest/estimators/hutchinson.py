"""The textbook estimator: means of ωᵀKω, ‖Kω‖² and ⟨K₁ω, K₂ω⟩, from a VJP and a JVP a probe.

For the trace it is the number that `reverse` gives for the same probes at half the passes, and is kept for comparison;
for ‖K‖_F it has no products of probes, and so the larger variance. Prefer the one-sided estimators.

Reference: Hutchinson, "A stochastic estimator of the trace of the influence matrix", Commun. Stat. Simul. 1989.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..linearization import Array, leading
from ..probes import Probes, draw_cotangents
from ..tangents import SquareNorms
from .applied import apply_kernel
from .images import row_gram
from .pairs import mean_moments
from .problem import Key, Moment, Problem, target_moments


@dataclass(frozen=True)
class State:
    """Samples of each moment, in pieces (m_p, rows)."""

    samples: dict[Key, tuple[Array, ...]] = field(default_factory=dict)
    targets: dict[Key, Moment] = field(default_factory=dict)


@dataclass(frozen=True)
class Hutchinson:
    """The estimator with two passes a probe."""

    name: str = "hutchinson"
    fewest: int = 4
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    first: int = 16
    parts: bool = True
    resumable: bool = True

    def passes(self, problem: Problem, samples: int) -> int:
        """A VJP a probe and kernel, and a JVP for each part."""
        return samples * self._each(problem) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """The number of probes that `passes` pay for."""
        return (passes - problem.targets) // self._each(problem)

    def _each(self, problem: Problem) -> int:
        return sum(1 + int(k.J.passes_per_jvp) * problem.groups.count for k in problem.kernels)

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` samples."""
        return (want - have) * self._each(problem)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Cotangents shared by the kernels."""
        return Probes(cotangents=draw_cotangents(problem.kernels[0].J, seed, start, stop))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Push the probes through, as many at a time as fit in the memory budget."""
        if state is None:
            state = State(targets=target_moments(problem))
        signs = probes.cotangents
        assert signs is not None
        count = leading(signs)
        each = max(problem.parameters(a) for a in problem.indices)
        step = max(1, min(count, problem.memory // (4 * (each + problem.rows * problem.size))))
        samples = dict(state.samples)
        for start in range(0, count, step):
            bits = signs[start : start + step, ...]
            for key, values in self._push(problem, bits).items():
                samples[key] = (*samples.get(key, ()), values)
        return replace(state, samples=samples)

    def _push(self, problem: Problem, bits: Array) -> dict[Key, Array]:
        xp = problem.xp
        samples: dict[Key, Array] = {}
        images = []
        for a in problem.indices:
            norms, rows = apply_kernel(problem, a, bits)
            images.append(rows)
            samples["trace", a] = norms
        norms_of = SquareNorms(xp, tuple(range(problem.rows)), problem.rows)
        for key in problem.needs:
            if key[0] == "square":
                samples[key] = norms_of(images[key[1]])
            elif key[0] == "cross":
                samples[key] = _row_products(problem, images[key[1]], images[key[2]])
        return {key: value for key, value in samples.items() if key in problem.needs}

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means over probes."""
        found = problem.on_host(mean_moments, ())(tuple(state.samples.values()), ())
        return {**{key: Moment(*arrays) for key, arrays in zip(state.samples, found, strict=True)}, **state.targets}


def _row_products(problem: Problem, left: tuple[Array, ...], right: tuple[Array, ...]) -> Array:
    """⟨left_i, right_i⟩ (c, rows)."""
    xp = problem.xp
    return xp.permute_dims(xp.linalg.diagonal(row_gram(problem, 0, "jvp")(left, right)), (1, 0))
