"""Reverse mode without the noise between examples, for models whose examples do not interact.

Jᵀω is a sum over examples of g_n = J_nᵀω_n, and most of the noise in ‖Jᵀω‖² comes from the products of different
g_n, whose mean carries nothing that tr K needs. A pass that leaves the sum out gives the N images g_n one by
one. With signs ω, all unbiased:

* tr K = E Σ_n ‖g_n‖², at a variance of 2 Σ_n (‖K_nn‖_F² − Σ K_ii²) a probe, over the diagonal blocks K_nn only. With
  D outputs an example, D probes that are unit vectors within every example are all rows of J: exact.
* ‖K‖_F² = E Σ_nn' (Γ^ab_nn')², Γ^ab_nn' = ⟨g_n^a, g_n'^b⟩, for probes a and b, which must differ where n = n'. Between
  examples a = b is taken, within an example all pairs a ≠ b.
* ⟨K₁, K₂⟩ likewise, from products of Γ¹ and Γ² for the same probes.

When to use it: nearly always for traces. For norms and products a probe takes the Gram matrix of N gradients, of s
numbers each: N²s multiplications beside the some 3NP of the pass, and N·s numbers are kept for at least two probes.
For dense layers, whose gradients come in factors, s is far below P; elsewhere it is P, and the method is
for batches of up to some dozens of examples.

In lattice field theory, splitting a probe so that noise between the parts drops out is known as dilution (Foley et al.,
"Practical all-to-all propagators for lattice QCD", Comput. Phys. Commun. 172, 2005); that here all parts cost one
pass together is owed to examples that do not interact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, InvalidValueError, UnsupportedModeError, beside, identity, leading, tree_map
from ..probes import Probes, draw_cotangents
from ..tangents import Gram
from .pairs import PairSums, append, mean_moment, pair_moment, pair_sums
from .problem import Key, Moment, Problem, target_moments, whole_and_parts

Images = tuple[Array, ...]
"""Blocks (m, N, P_l), or pairs of factors (m, N, S, …): gradients of N examples for m probes."""


@dataclass(frozen=True)
class State:
    """What a run has gathered."""

    norms: tuple[tuple[Array, ...], ...] = ()
    """For each kernel, pieces (m_p, rows) of Σ_n ‖g_n‖²."""
    between: dict[Key, tuple[Array, ...]] = field(default_factory=dict)
    """For each wanted "square" and "cross" moment, pieces (m_p, rows) of Σ_{n≠n'} Γ¹_nn' Γ²_nn'."""
    within: dict[Key, PairSums] = field(default_factory=dict)
    """For the same moments, pair sums of Σ_n Γ¹^ab_nn Γ²^ab_nn over probes a ≠ b."""
    window: tuple[tuple[Images, ...], ...] = ()
    """The images of the open window: for each piece, for each kernel."""
    lengths: tuple[int, ...] = ()
    """Probes in each piece of the open window."""
    known: dict[Key, Moment] = field(default_factory=dict)
    """Moments that are exact."""

    @property
    def finished(self) -> bool:
        """Whether traces are exact, so that more probes would tell nothing."""
        return any(key[0] == "trace" for key in self.known)


@dataclass(frozen=True)
class ByExample:
    """The estimator."""

    name: str = "reverse-by-example"
    fewest: int = 4
    first: int = 16
    parts: bool = True
    resumable: bool = True
    modes: frozenset[str] = frozenset({"vjp"})

    def offered(self, problem: Problem) -> bool:
        """Whether the kernels have what it takes, and memory suffices."""
        return _obstacle(problem) is None

    def all_units(self, problem: Problem) -> int | None:
        """D, the number of probes from which traces are exact; None where more than traces and targets is wanted.

        Raises
        ------
        InvalidValueError, UnsupportedModeError
            If the method cannot be used here.
        """
        _, count = _examples(problem)
        return None if problem.pairs else problem.size // count

    def passes(self, problem: Problem, samples: int) -> int:
        """A pass a probe and kernel, where for traces alone D are enough; and one for exact targets."""
        units = self.all_units(problem)
        each = samples if units is None else min(samples, units)
        return each * len(problem.kernels) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """The number of probes that `passes` pay for, where D of them count as enough for an error bar."""
        units, most = self.all_units(problem), (passes - problem.targets) // len(problem.kernels)
        return most if units is None or most < units else max(units, self.fewest)

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` probes; to the D unit vectors, if those are fewer."""
        units = self.all_units(problem)
        if units is None or want < units:
            return (want - have) * len(problem.kernels)
        return 0 if have >= units else units * len(problem.kernels)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Cotangents shared by the kernels, those of "reverse"."""
        return Probes(cotangents=draw_cotangents(problem.kernels[0].J, seed, start, stop))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Push probes through, or the D unit vectors where no fewer probes are there by now."""
        units = self.all_units(problem)
        if state is None:
            state = State(known=target_moments(problem))
        if state.finished:
            return state
        signs = probes.cotangents
        assert signs is not None
        given, before = leading(signs), sum(a.shape[0] for a in state.norms[0]) if state.norms else 0
        if units is not None and before + given >= units:
            return replace(state, known={**state.known, **all_traces(problem, units)})
        if units is not None:
            return replace(state, norms=append(state.norms, [_norms(problem, a, signs) for a in problem.indices]))
        window, start = _window(problem), 0
        while start < given:
            if sum(state.lengths) >= window:
                state = replace(state, window=(), lengths=())
            room = min(given - start, window - sum(state.lengths))
            if given - start - room == 1:  # a window of one probe would have no pairs
                room = room - 1 if room > 1 else room + 1
            state = self._extend_window(problem, state, signs[start : start + room, ...])
            start += room
        return state

    def _extend_window(self, problem: Problem, state: State, signs: Array) -> State:
        """Products between the gradients of all examples for each new probe, and within examples across probes."""
        images = tuple(_images(problem, a, signs) for a in problem.indices)
        grams = tuple(problem.parameter_gram(a) for a in problem.indices)
        keys = tuple(sorted(key for key in problem.needs if key[0] in ("square", "cross")))
        before = [state.within.get(key, PairSums()) for key in keys]
        old = tuple((sums.open(len(state.window)), sums.total) for sums in before)
        step = problem.compiled(_window_step, problem.xp, grams, keys, bool(problem.groups.names))
        norms, between, updated = step(images, state.window, old)
        new = leading(signs)
        return replace(
            state,
            norms=append(state.norms, list(norms)),
            between={key: (*state.between.get(key, ()), a) for key, a in zip(keys, between, strict=True)},
            within={
                key: was.grown(state.lengths, new, involving, total, False)
                for key, was, (involving, total) in zip(keys, before, updated, strict=True)
            },
            window=(*state.window, images),
            lengths=(*state.lengths, new),
        )

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means over probes, and for products also over pairs of them."""
        wanted = tuple(sorted(problem.needs - state.known.keys()))
        traces = tuple(key for key in wanted if key[0] == "trace")
        pairs = tuple(key for key in wanted if key[0] in ("square", "cross"))
        counts = tuple((state.within[key].counts, state.within[key].pairs) for key in pairs)
        sums = tuple((state.within[key].involving, state.within[key].total) for key in pairs)
        norms = tuple(state.norms[key[1]] for key in traces)
        between = tuple(state.between[key] for key in pairs)
        found = problem.on_host(_means, counts)(norms, between, sums)
        return {**{k: Moment(*arrays) for k, arrays in zip([*traces, *pairs], found, strict=True)}, **state.known}

    def remark(self, problem: Problem, state: State) -> str:
        """What a result should say about how it came about."""
        if not state.finished:
            return ""
        return f"exact: {self.all_units(problem)} unit cotangents an example are all rows of J"


BY_EXAMPLE = ByExample()


@dataclass(frozen=True)
class ExampleUnits:
    """Expands indices d (c,) to cotangents that are 2**-exponent in output d of every example, (c, M)."""

    xp: ModuleType
    shape: tuple[int, ...]
    axis: int
    dtype: Any
    exponent: int

    def __call__(self, index: Array) -> Array:
        """Expand a chunk."""
        alone = tuple(1 if axis == self.axis else n for axis, n in enumerate(self.shape))
        place = np.broadcast_to(np.arange(math.prod(alone)).reshape(alone), self.shape).reshape(-1)
        chosen = index[:, None] == beside(self.xp, place, index)[None, :]
        return self.xp.astype(chosen, self.dtype) * 2.0**-self.exponent


def all_traces(problem: Problem, units: int) -> dict[Key, Moment]:
    """The wanted traces from all rows of J."""
    xp, traces = problem.xp, {}
    for a, kernel in enumerate(problem.kernels):
        J = kernel.J
        index = beside(xp, np.arange(units), J.outputs, xp.int32)
        shape = tuple(int(n) for n in J.outputs.shape)
        expand = ExampleUnits(xp, shape, _examples(problem)[0], J.outputs.dtype, problem.exponents[a])
        norms = kernel.map_example_vjp(problem.parameter_norms(a), index, expand, units)
        if ("trace", a) in problem.needs:
            traces["trace", a] = Moment(problem.whole_and_parts(xp.sum(norms, axis=(0, 1)), 0))
    return traces


def _norms(problem: Problem, a: int, signs: Array) -> Array:
    """(m, rows): Σ_n ‖g_n‖² for all probes, from norms (m, N, parts)."""
    cotangents, expand = problem.cotangents(a, signs)
    norms = problem.kernels[a].map_example_vjp(problem.parameter_norms(a), cotangents, expand, leading(signs))
    return problem.whole_and_parts(problem.xp.sum(norms, axis=1), 1)


def _images(problem: Problem, a: int, signs: Array) -> Images:
    """Blocks (m, N, P_l)."""
    cotangents, expand = problem.cotangents(a, signs)
    images: Images = problem.kernels[a].map_example_vjp(identity, cotangents, expand, leading(signs))
    return images


def _window_step(
    xp: ModuleType,
    grams: tuple[Gram, ...],
    keys: tuple[Key, ...],
    named: bool,
    images: tuple[Images, ...],
    window: tuple[tuple[Images, ...], ...],
    old: tuple[tuple[tuple[Array, ...], Any], ...],
) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[tuple[tuple[Array, ...], Array], ...]]:
    """Norms (m, rows) for each kernel; for each key Σ_{n≠n'} (m, rows) and the updated pair sums; array-only."""

    def gram(a: int, left: Images, right: Images) -> Array:
        return whole_and_parts(xp, named, grams[a](left, right), 0)

    def by_probe(products: Array) -> Array:  # (rows, m, …) to (m, rows)
        return xp.permute_dims(xp.sum(products, axis=tuple(range(2, products.ndim))), (1, 0))

    kernels = range(len(images))
    turned = [_turned(xp, rows) for rows in images]
    full = [gram(a, images[a], images[a]) for a in kernels]  # (rows, m, N, N)
    own = [xp.linalg.diagonal(products) for products in full]  # (rows, m, N)
    inside = [gram(a, turned[a], turned[a]) for a in kernels]  # (rows, N, m, m)
    across = [[gram(a, _turned(xp, piece[a]), turned[a]) for a in kernels] for piece in window]
    between, updated = [], []
    for key, (involving, total) in zip(keys, old, strict=True):
        a, b = key[1], key[-1]
        between.append(by_probe(full[a] * full[b]) - by_probe(own[a] * own[b]))
        pairs = xp.sum(inside[a] * inside[b], axis=1)
        others = [2.0 * xp.sum(piece[a] * piece[b], axis=1) for piece in across]
        updated.append(pair_sums(xp, pairs, others, involving, total, False))
    return tuple(by_probe(squares) for squares in own), tuple(between), tuple(updated)


def _turned(xp: ModuleType, images: Images) -> Images:
    """Blocks (m, N, …) to (N, m, …)."""
    turned: Images = tree_map(lambda a: xp.permute_dims(a, (1, 0, *range(2, a.ndim))), images)
    return turned


def _means(
    xp: ModuleType,
    counts: tuple[tuple[tuple[int, ...], int], ...],
    norms: tuple[tuple[Array, ...], ...],
    between: tuple[tuple[Array, ...], ...],
    sums: tuple[tuple[tuple[Array, ...], Array], ...],
) -> tuple[tuple[Array, Array | None], ...]:
    """Values and replicates of traces, then of products; array-only."""
    found = [mean_moment(xp, pieces) for pieces in norms]
    for count, pieces, pairs in zip(counts, between, sums, strict=True):
        outside, inside = mean_moment(xp, pieces), pair_moment(xp, *count, *pairs)
        without: Any = [outside.replicates, inside.replicates]
        found.append(Moment(outside.value + inside.value, without[0] + without[1]))
    return tuple((moment.value, moment.replicates) for moment in found)


def _examples(problem: Problem) -> tuple[int, int]:
    """(axis, N), the same for all kernels.

    Raises
    ------
    InvalidValueError, UnsupportedModeError
        If the method cannot be used here.
    """
    obstacle = _obstacle(problem)
    if obstacle is not None:
        raise obstacle
    found = problem.kernels[0].J.examples
    assert found is not None
    return found


def _obstacle(problem: Problem) -> InvalidValueError | UnsupportedModeError | None:
    """Why the method cannot be used, if so."""
    name = f"method={BY_EXAMPLE.name!r}"
    for kernel in problem.kernels:
        J = kernel.J
        if J.examples is None:
            return InvalidValueError(
                f"{name} needs outputs with an axis of examples that do not interact, and none was found in the "
                f"outputs of shape {tuple(J.outputs.shape)}; name it with batch_axis= (output_shape= for "
                "from_jacobian), or use method='reverse'"
            )
        if getattr(J, "map_example_vjp", None) is None:
            return UnsupportedModeError(
                f"{name} needs gradients of single examples (map_example_vjp), which {type(J).__name__} does not "
                "offer for this model; use method='reverse'"
            )
        if J.examples != problem.kernels[0].J.examples:
            return InvalidValueError(
                f"{name} needs the same axis of examples in both linearizations, not axes "
                f"{problem.kernels[0].J.examples} and {J.examples} (axis, N); use method='reverse'"
            )
    if problem.centre is not None:
        return InvalidValueError(
            f"{name} has no centred form, because centring mixes the examples; use method='reverse'"
        )
    if not problem.pairs:
        return None
    needed = 2 * probe_bytes(problem)
    if needed > problem.memory:
        return InvalidValueError(
            f"{name} keeps the gradients of all examples for two probes, {needed} bytes, and memory={problem.memory}; "
            "give it more, or use method='reverse'"
        )
    return None


def probe_bytes(problem: Problem) -> int:
    """Bytes for one probe: the images of all examples for each kernel, and their Gram matrices by part."""
    count = 1 if problem.kernels[0].J.examples is None else problem.kernels[0].J.examples[1]
    images = 0
    for kernel in problem.kernels:
        J: Any = kernel.J
        images += int(J.example_size) * max(int(problem.xp.finfo(p.dtype).bits) // 8 for p in J.params)
    return count * images + 8 * count * count * (problem.rows + 2) * len(problem.kernels)


def _window(problem: Problem) -> int:
    """Probes whose images fit in the memory budget together, at least two."""
    return max(2, problem.memory // probe_bytes(problem))
