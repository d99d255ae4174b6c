"""The textbook estimator: means of ωᵀKω, ‖Kω‖² and ⟨K₁ω, K₂ω⟩, from a VJP and a JVP a probe.

For the trace it is the number that `reverse` gives for the same probes at half the passes, and is kept for comparison;
for ‖K‖_F it has no products of probes, and so the larger variance. Prefer the one-sided estimators.

Reference: Hutchinson, "A stochastic estimator of the trace of the influence matrix", Commun. Stat. Simul. 1989.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType

from ..linearization import Array, identity, leading
from ..probes import Probes, draw_cotangents
from ..tangents import SquareNorms
from .images import OutputImages, image_bytes, row_gram, whole_first
from .pairs import mean_moment
from .problem import Key, Moment, Problem, target_moments

WINDOW = 1 / 4
"""The share of the memory for the parameter-side images of probes on their way to Kω."""


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
        xp = problem.xp
        return {**{key: mean_moment(xp, pieces) for key, pieces in state.samples.items()}, **state.targets}


def apply_kernel(problem: Problem, a: int, probes: Array) -> tuple[Array, tuple[Array, ...]]:
    """ωᵀKω (c, rows), and Kω (c, M) for the whole and each part: a VJP, and a JVP for each part."""
    kernel = problem.kernels[a]
    cotangents, expand = problem.cotangents(a, probes)
    pulled = kernel.map_vjp(identity, cotangents, expand, leading(probes))
    norms = kernel.compile(problem.parameter_norms(a))(pulled)
    return problem.whole_and_parts(norms, 1), push(problem, a, pulled)


def windows(problem: Problem, a: int, rows: Array) -> list[Array]:
    """Cotangents (k, M) as some of them at a time, whose images Jᵀω fit in their share of the memory together."""
    cotangents = problem.xp.astype(rows, problem.kernels[a].J.outputs.dtype, copy=False)
    count, most = rows.shape[0], int(WINDOW * problem.memory) // max(1, image_bytes(problem, "vjp")[a])
    each = -(-count // -(-count // max(1, most)))  # all about as large: a pass of few probes costs nearly as much
    return [cotangents[start : min(start + each, count), :] for start in range(0, count, each)]


def together(xp: ModuleType, pieces: list[Array]) -> Array:
    """What came of windows, one below the other."""
    return pieces[0] if len(pieces) == 1 else xp.concat(pieces, axis=0)


def push(problem: Problem, a: int, pulled: tuple[Array, ...]) -> tuple[Array, ...]:
    """J g for the whole and J_l g_l for each part, (c, M) each, with g = `pulled` scaled by 2**-exponent once more."""
    kernel, xp = problem.kernels[a], problem.xp
    pairs = zip(pulled, kernel.J.params, strict=True)
    scaled = tuple(xp.astype(problem.scaled(a, block), p.dtype, copy=False) for block, p in pairs)
    reduce = OutputImages(xp, problem.centre)
    parts = []
    for part in range(problem.groups.count):
        blocks = problem.groups.blocks(part) if problem.groups.names else range(len(scaled))
        kept = tuple(block if i in blocks else block * 0.0 for i, block in enumerate(scaled))
        parts.append(kernel.map_jvp(reduce, kept, None, leading(scaled)))
    return whole_first(problem, parts)


def _row_products(problem: Problem, left: tuple[Array, ...], right: tuple[Array, ...]) -> Array:
    """⟨left_i, right_i⟩ (c, rows)."""
    xp = problem.xp
    return xp.permute_dims(xp.linalg.diagonal(row_gram(problem, 0, "jvp")(left, right)), (1, 0))
