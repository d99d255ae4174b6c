"""One AD mode is enough: tr K = E‖Jᵀω‖² in reverse, E‖Jv‖² in forward; norms and products from the probes' Gram matrix.

With sign probes and S_ij = ⟨Jᵀω_i, Jᵀω_j⟩ (reverse) or ⟨Jv_i, Jv_j⟩ (forward), all unbiased:

* tr K = mean_i S_ii, at a variance of 2(‖K‖_F² − Σ K_ii²) a probe in reverse, 2(‖K‖_F² − Σ (JᵀJ)_jj²) in forward;
* ‖K‖_F² = mean_{i≠j} S_ij²;
* ⟨K₁, K₂⟩ = mean_{i≠j} S¹_ij S²_ij in reverse, with the same ω for both kernels. In forward the parameter
  spaces differ, so v and w are independent and ⟨K₁, K₂⟩ = mean_{ij} ⟨J₁v_i, J₂w_j⟩², over all i and j.

When only traces are wanted, images are reduced to their norms inside the adapter's loop. Otherwise
they are kept for as many probes as fit in the memory budget, and pairs are taken within such windows only.

Reference: Hazelden, "Fast neural tangent kernel alignment, norm and effective rank via trace estimation",
arXiv:2511.10796 (one-sided estimators); Hutchinson, Commun. Stat. Simul. 1989.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from ..linearization import Array, leading, tree_map
from ..probes import Probes, draw_cotangents, draw_tangents
from .images import RowGram, heights, image_bytes, push_images, push_norms, row_gram
from .pairs import PairSums, append, mean_moments, pair_sums
from .problem import Key, Moment, Problem, target_moments


@dataclass(frozen=True)
class State:
    """What a one-sided run has gathered."""

    norms: tuple[tuple[Array, ...], ...] = ()
    """For each kernel, pieces (m_p, rows) of squared norms of images."""
    sums: dict[Key, PairSums] = field(default_factory=dict)
    """Pair sums for each wanted "square" and "cross" moment."""
    window: tuple[tuple[Any, ...], ...] = ()
    """The images of the open window: for each piece, for each kernel."""
    lengths: tuple[int, ...] = ()
    """Probes in each piece of the open window."""
    heights: tuple[tuple[Array, ...], ...] = ()
    """Forward mode without VJPs: for each kernel, pieces (m_p, rows) of ⟨y, Jv⟩²/‖y‖²."""
    targets: dict[Key, Moment] = field(default_factory=dict)
    """Target moments that are exact."""


@dataclass(frozen=True)
class OneSided:
    """The estimator of one mode."""

    name: str
    mode: str
    fewest: int = 4
    first: int = 16
    parts: bool = True
    resumable: bool = True

    @property
    def modes(self) -> frozenset[str]:
        """The AD modes that it needs."""
        return frozenset({self.mode})

    def passes(self, problem: Problem, samples: int) -> int:
        """A pass a probe and kernel; by layer in forward mode, a pass a layer; and one for exact targets."""
        return samples * self._each(problem) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """The number of probes that `passes` pay for."""
        return (passes - problem.targets) // self._each(problem)

    def _each(self, problem: Problem) -> int:
        if self.mode == "vjp":
            return len(problem.kernels)
        return sum(k.J.passes_per_jvp for k in problem.kernels) * problem.groups.count

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` probes."""
        return (want - have) * self._each(problem)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Cotangents shared by the kernels, or independent tangents for each."""
        if self.mode == "vjp":
            return Probes(cotangents=draw_cotangents(problem.kernels[0].J, seed, start, stop))
        drawn = (draw_tangents(k.J, seed, start, stop, a) for a, k in enumerate(problem.kernels))
        return Probes(tangents=tuple(drawn))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Push the probes through, in pieces that fit the open window where images are kept."""
        if state is None:
            state = State(targets=target_moments(problem) if problem.has("vjp") else {})
        if not problem.pairs:
            return self._extend_norms(problem, state, probes)
        window = _window(problem, self.mode)
        given = leading(probes.cotangents if self.mode == "vjp" else probes.tangents)
        start = 0
        while start < given:
            if sum(state.lengths) >= window:
                state = replace(state, window=(), lengths=())
            room = min(given - start, window - sum(state.lengths))
            if given - start - room == 1:  # a window of one probe would have no pairs
                room = room - 1 if room > 1 else room + 1
            state = self._extend_window(problem, state, _slice(probes, start, start + room))
            start += room
        return state

    def _extend_norms(self, problem: Problem, state: State, probes: Probes) -> State:
        norms = [push_norms(problem, a, self.mode, probes) for a in problem.indices]
        return replace(state, norms=append(state.norms, norms))

    def _extend_window(self, problem: Problem, state: State, probes: Probes) -> State:
        """Pair new images with each other and with those of the open window."""
        kernels = problem.indices
        images = tuple(push_images(problem, a, self.mode, probes) for a in kernels)
        grams = tuple(row_gram(problem, a, self.mode) for a in kernels)
        keys = tuple(sorted(key for key in problem.needs if key[0] in ("square", "cross")))
        with_heights = problem.wants("target") and not state.targets
        pieces = len(state.window)
        before = [state.sums.get(key, PairSums()) for key in keys]
        old = tuple((sums.open(pieces), sums.total) for sums in before)
        step = problem.compiled(
            _window_step, problem.xp, grams, keys, self.mode == "jvp" and bool(problem.groups.names)
        )
        norms, updated = step(images, state.window, old)
        new = norms[0].shape[0]
        sums = {
            key: was.grown(state.lengths, new, involving, total, _diagonal(key, grams))
            for key, was, (involving, total) in zip(keys, before, updated, strict=True)
        }
        products = state.heights
        if with_heights:
            products = append(products, [heights(problem, images[a]) for a in kernels])
        return replace(
            state,
            norms=append(state.norms, list(norms)),
            sums=sums,
            window=(*state.window, images),
            lengths=(*state.lengths, new),
            heights=products,
        )

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means over probes and pairs."""
        means = [key for key in sorted(problem.needs - state.targets.keys()) if key[0] in ("trace", "target")]
        pairs = sorted(state.sums)
        counts = tuple((state.sums[key].counts, state.sums[key].pairs) for key in pairs)
        samples = tuple((state.norms if key[0] == "trace" else state.heights)[key[1]] for key in means)
        sums = tuple((state.sums[key].involving, state.sums[key].total) for key in pairs)
        found = problem.on_host(mean_moments, counts)(samples, sums)
        return {
            **{key: Moment(*arrays) for key, arrays in zip([*means, *pairs], found, strict=True)},
            **state.targets,
        }


REVERSE = OneSided("reverse", "vjp")
FORWARD = OneSided("forward", "jvp")


def _window_step(
    xp: ModuleType,
    grams: tuple[RowGram, ...],
    keys: tuple[Key, ...],
    sum_parts: bool,
    images: tuple[Any, ...],
    window: tuple[tuple[Any, ...], ...],
    old: tuple[tuple[tuple[Array, ...], Any], ...],
) -> tuple[tuple[Array, ...], tuple[tuple[tuple[Array, ...], Array], ...]]:
    """Norms of the new images for each kernel, and the pair sums for each key; array-only."""
    within = [gram(rows, rows) for gram, rows in zip(grams, images, strict=True)]
    across = [[gram(piece[a], images[a]) for a, gram in enumerate(grams)] for piece in window]
    updated = []
    for key, (involving, total) in zip(keys, old, strict=True):
        a, b = key[1], key[-1]
        if _diagonal(key, grams):
            own = grams[a](images[a], images[b]) ** 2
            others = [grams[a](p[a], images[b]) ** 2 + grams[a](p[b], images[a]) ** 2 for p in window]
        else:
            own = within[a] * within[b]
            others = [2.0 * products[a] * products[b] for products in across]
        updated.append(pair_sums(xp, own, others, involving, total, _diagonal(key, grams)))
    norms = []
    for gram in within:
        diagonal = xp.permute_dims(xp.linalg.diagonal(gram), (1, 0))
        if sum_parts:  # in forward mode the trace of the whole is the sum over parts, not the norm of their sum
            parts = diagonal[:, 1:]
            diagonal = xp.concat([xp.sum(parts, axis=1, keepdims=True), parts], axis=1)
        norms.append(diagonal)
    return tuple(norms), tuple(updated)


def _diagonal(key: Key, grams: tuple[RowGram, ...]) -> bool:
    """Whether probe i pairs with its own index: products of output-side images, whose probes are independent."""
    return key[0] == "cross" and grams[0].output_side


def _window(problem: Problem, mode: str) -> int:
    """Probes whose images fit in the memory budget together, at least two."""
    each = sum(image_bytes(problem, mode)) * (problem.rows if mode == "jvp" else 1)
    return max(2, problem.memory // max(1, each))


def _slice(probes: Probes, start: int, stop: int) -> Probes:
    def cut(tree: Any) -> Any:
        return None if tree is None else tree_map(lambda array: array[start:stop, ...], tree)

    return Probes(*(cut(tree) for tree in probes))
