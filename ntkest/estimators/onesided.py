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

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from ..linearization import Array, identity, leading, tree_map
from ..probes import (
    Centre,
    Probes,
    draw_cotangents,
    draw_tangents,
    tangent_expander,
)
from ..tangents import Gram, SquareNorms
from .pairs import PairSums, mean_moment
from .problem import Key, Moment, OutputImages, Problem, target_moments, whole_first


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

    @property
    def modes(self) -> frozenset[str]:
        """The AD modes that it needs."""
        return frozenset({self.mode})

    def passes(self, problem: Problem, samples: int) -> int:
        """A pass a probe and kernel; by layer in forward mode, a pass a layer; and one for exact targets."""
        return samples * self._each(problem) + _target_passes(problem)

    def samples(self, problem: Problem, passes: int) -> int:
        """The number of probes that `passes` pay for."""
        return (passes - _target_passes(problem)) // self._each(problem)

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
        if not (problem.wants("square") or problem.wants("cross")):
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
        norms = [_push_norms(problem, a, self.mode, probes) for a in range(len(problem.kernels))]
        return replace(state, norms=_append(state.norms, norms))

    def _extend_window(self, problem: Problem, state: State, probes: Probes) -> State:
        xp = problem.xp
        images = tuple(_push_images(problem, a, self.mode, probes) for a in range(len(problem.kernels)))
        grams = {a: gram_of(problem, a, self.mode)(images[a], images[a]) for a in range(len(images))}
        norms = [_norms_of_gram(problem, a, self.mode, grams[a]) for a in grams]
        new = norms[0].shape[0]
        sums = dict(state.sums)
        for key in problem.needs:
            if key[0] == "square" or (key[0] == "cross" and self.mode == "vjp"):
                a, b = key[1], key[-1]
                within = grams[a] * grams[b]
                across = []
                for piece in state.window:
                    left = gram_of(problem, a, self.mode)(piece[a], images[a])
                    right = left if a == b else gram_of(problem, b, self.mode)(piece[b], images[b])
                    across.append(2.0 * left * right)
                sums[key] = sums.get(key, PairSums()).add(xp, within, across, state.lengths, diagonal=False)
            elif key[0] == "cross":
                a, b = key[1], key[2]
                mixed = gram_of(problem, a, self.mode)
                within = mixed(images[a], images[b]) ** 2
                across = [mixed(piece[a], images[b]) ** 2 + mixed(piece[b], images[a]) ** 2 for piece in state.window]
                sums[key] = sums.get(key, PairSums()).add(xp, within, across, state.lengths, diagonal=True)
        products = state.heights
        if problem.wants("target") and not state.targets:
            products = _append(products, [heights(problem, images[a]) for a in range(len(images))])
        return replace(
            state,
            norms=_append(state.norms, norms),
            sums=sums,
            window=(*state.window, images),
            lengths=(*state.lengths, new),
            heights=products,
        )

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means over probes and pairs."""
        xp = problem.xp
        found = {key: sums.moment(xp) for key, sums in state.sums.items()}
        found.update(state.targets)
        for key in problem.needs:
            if key[0] == "trace":
                found[key] = mean_moment(xp, xp.concat(state.norms[key[1]], axis=0))
            elif key[0] == "target" and key not in found:
                found[key] = mean_moment(xp, xp.concat(state.heights[key[1]], axis=0))
        return found


REVERSE = OneSided("reverse", "vjp")
FORWARD = OneSided("forward", "jvp")


@dataclass(frozen=True)
class OutputNorms:
    """Squared norms (c, 1) of images Jv, centred if asked."""

    xp: ModuleType
    centre: Centre | None

    def __call__(self, images: Array) -> Array:
        """A chunk of images."""
        return SquareNorms(self.xp, (0,), 1)(OutputImages(self.xp, self.centre)(images))


def _push_norms(problem: Problem, a: int, mode: str, probes: Probes) -> Array:
    """(m, rows): squared norms of the images of all probes, reduced inside the adapter's loop."""
    kernel, xp = problem.kernels[a], problem.xp
    if mode == "vjp":
        cotangents, expand = problem.cotangents(a, probes.cotangents)
        norms = kernel.map_vjp(problem.parameter_norms(a), cotangents, expand, leading(cotangents))
        return problem.whole_and_parts(norms, 1)
    reduce = OutputNorms(xp, problem.centre)
    return problem.whole_and_parts(xp.concat(_push_parts(problem, a, probes, reduce), axis=1), 1)


def _push_images(problem: Problem, a: int, mode: str, probes: Probes) -> tuple[Array, ...]:
    """Reverse: blocks (m, P_l). Forward: (m, M) for the whole and then for each part."""
    kernel = problem.kernels[a]
    if mode == "vjp":
        cotangents, expand = problem.cotangents(a, probes.cotangents)
        return tuple(kernel.map_vjp(identity, cotangents, expand, leading(cotangents)))
    parts = _push_parts(problem, a, probes, OutputImages(problem.xp, problem.centre))
    return whole_first(problem, parts)


def _push_parts(problem: Problem, a: int, probes: Probes, reduce: Callable[[Array], Array]) -> list[Array]:
    """Forward images of the probes restricted to each part, reduced."""
    kernel = problem.kernels[a]
    assert probes.tangents is not None
    bits = probes.tangents[a]
    only = [problem.groups.blocks(part) for part in range(problem.groups.count)] if problem.groups.names else [None]
    expanders = [tangent_expander(kernel.J, problem.exponents[a], blocks) for blocks in only]
    return [kernel.map_jvp(reduce, bits, expand, leading(bits)) for expand in expanders]


@dataclass(frozen=True)
class RowGram:
    """Inner products of images, (rows, a, b), the whole first."""

    gram: Gram
    total: bool

    def __call__(self, left: tuple[Array, ...], right: tuple[Array, ...]) -> Array:
        """Inner products of two batches of images."""
        xp = self.gram.xp
        parts = self.gram(left, right)
        return xp.concat([xp.sum(parts, axis=0, keepdims=True), parts], axis=0) if self.total else parts


def gram_of(problem: Problem, a: int, mode: str) -> Callable[..., Array]:
    """Gram matrices of images as `_push_images` returns them, compiled where that helps."""
    if mode == "vjp":
        gram = RowGram(problem.parameter_gram(a), bool(problem.groups.names))
    else:
        gram = RowGram(Gram(problem.xp, tuple(range(problem.rows)), problem.rows), False)
    return problem.kernels[a].compile(gram)


def _norms_of_gram(problem: Problem, a: int, mode: str, gram: Array) -> Array:
    """(m, rows): squared norms from the diagonals; in forward mode the whole is the sum of its parts."""
    xp = problem.xp
    diagonal = xp.permute_dims(xp.linalg.diagonal(gram), (1, 0))
    if mode == "jvp" and problem.groups.names:
        return problem.whole_and_parts(diagonal[:, 1:], 1)
    return diagonal


def heights(problem: Problem, images: tuple[Array, ...]) -> Array:
    """⟨y, Jv⟩²/‖y‖² of each of several batches of images (m, M), stacked to (m, batches)."""
    xp = problem.xp
    gram = Gram(xp, tuple(range(len(images))), len(images))
    assert problem.target is not None
    products = gram(images, (problem.target,) * len(images))  # (batches, m, 1)
    return xp.permute_dims(products[:, :, 0], (1, 0)) ** 2 / problem.target_norm


def image_bytes(problem: Problem, mode: str) -> list[int]:
    """Bytes of one probe's image, for each kernel."""
    xp = problem.xp
    kept = [kernel.J.params if mode == "vjp" else (kernel.J.outputs,) for kernel in problem.kernels]
    return [sum(math.prod(array.shape) * int(xp.finfo(array.dtype).bits) // 8 for array in side) for side in kept]


def _window(problem: Problem, mode: str) -> int:
    """Probes whose images fit in the memory budget together, at least two."""
    each = sum(image_bytes(problem, mode)) * (problem.rows if mode == "jvp" else 1)
    return max(2, problem.memory // max(1, each))


def _target_passes(problem: Problem) -> int:
    return sum(key[0] == "target" for key in problem.needs) if problem.has("vjp") else 0


def _append(pieces: tuple[tuple[Array, ...], ...], new: list[Array]) -> tuple[tuple[Array, ...], ...]:
    before = pieces or ((),) * len(new)
    return tuple((*old, piece) for old, piece in zip(before, new, strict=True))


def _slice(probes: Probes, start: int, stop: int) -> Probes:
    def cut(tree: Any) -> Any:
        return None if tree is None else tree_map(lambda array: array[start:stop, ...], tree)

    return Probes(*(cut(tree) for tree in probes))
