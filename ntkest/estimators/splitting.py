"""K split by a sketched subspace of the parameters: what is known on it, and raw data for the rest.

With an orthonormal basis Q (P×k) of JᵀΩ, for k sketching cotangents Ω, and Z = JQ, K splits into B = ZZᵀ and a positive
semi-definite E = J(1 - QQᵀ)Jᵀ with EΩ = 0: B is the Nyström approximation of K. For fresh probes ω

* tr K = ‖Z‖_F² + E(‖Jᵀω‖² - ‖Zᵀω‖²);
* ⟨K₁, K₂⟩ = ‖J₂ᵀZ₁‖_F² + ‖J₁ᵀZ₂‖_F² - ‖Z₁ᵀZ₂‖_F² + ⟨E₁, E₂⟩, the last term being the mean over i ≠ j of the products
  of e¹_ij and e²_ij, where e_ij = ⟨Jᵀω_i, Jᵀω_j⟩ - ⟨Zᵀω_i, Zᵀω_j⟩; with K₁ = K₂ that is ‖K‖_F².

Each kernel has a basis of its own. By layer each layer has one too, at a JVP a layer and column, and the whole is their
sum. All is unbiased for any Q. Probes keep their ‖Jᵀω‖² and inner products when Q grows: nothing is run anew.

Reference: Persson, Cortinovis, Kressner, "Improved variants of the Hutch++ algorithm for trace estimation", SIAM J.
Matrix Anal. Appl. 2022. The basis on the parameter side, which makes B's square root from a QR and needs no
inverse, the one-sided remainder, and the form for norms and products use K = JJᵀ and are not in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType

from ..linearization import Array, Blocks, Expand, eps, identity, leading
from ..probes import cotangent_expander
from ..tangents import Gram, SquareNorms, join
from .bases import Basis, extended
from .images import OutputImages, image_bytes
from .pairs import PairSums, append, mean_moment, pair_moment, pair_sums
from .problem import Key, Moment, Problem, target_moments, whole_and_parts
from .spans import Span

LEAN = 0.75
"""`Moment.lean` of remainders, which are measured by few probes and have heavy tails."""

ROUNDING = 8.0
"""Machine epsilons of ‖Jᵀω‖² that a difference from it must exceed to be more than rounding."""


@dataclass(frozen=True)
class State:
    """Bases, what is known on them, and raw inner products of the probes' images."""

    bases: tuple[Basis, ...] = ()
    """For each kernel Q."""
    images: tuple[Array, ...] = ()
    """For each kernel (parts, k, M): Zᵀ."""
    pulled: dict[tuple[int, int], Array] = field(default_factory=dict)
    """For kernels (a, b) (parts of Z_a, parts of J_b): ‖J_bᵀZ_a‖_F²."""
    signs: Array = None
    """Bits of the probes."""
    norms: tuple[tuple[Array, ...], ...] = ()
    """For each kernel pieces (m_p, parts): ‖Jᵀω‖² by part."""
    grams: tuple[tuple[Array, ...], ...] = ()
    """For each window, for each kernel (parts, w, w): ⟨Jᵀω_i, Jᵀω_j⟩; the last window is open."""
    window: tuple[Blocks, ...] = ()
    """For each kernel the images Jᵀω of the open window."""
    targets: dict[Key, Moment] = field(default_factory=dict)


def begin(problem: Problem) -> State:
    """The state of a run before its first column and probe."""
    return State(targets=target_moments(problem))


def space(problem: Problem) -> int:
    """The most columns that a basis may have: the dimension of what sketching cotangents can reach.

    Or as many as fit, with their images, in half of the memory budget; the other half is for the probes' images.
    """
    rank = problem.size if problem.centre is None else problem.centre.rank
    each = sum(image_bytes(problem, "vjp")) + problem.groups.count * sum(image_bytes(problem, "jvp"))
    return max(1, min(rank, problem.memory // 2 // max(1, each)))


def column_cost(problem: Problem) -> int:
    """Passes for one column of every basis: Jᵀω, J Q by part, and the images of Z that products ask for."""
    own = sum(1 + int(k.J.passes_per_jvp) * problem.groups.count for k in problem.kernels)
    return own + problem.groups.count * len(_pulls(problem))


def add_columns(problem: Problem, state: State, sketch: Array) -> State:
    """Extend each basis by the images of sketching cotangents, as bits (n, ⌈M/8⌉)."""
    xp, have = problem.xp, state.bases[0].count if state.bases else 0
    sketch = sketch[: min(leading(sketch), space(problem) - have), ...]
    if not leading(sketch):
        return state
    bases, fresh, images = [], [], []
    for a, kernel in enumerate(problem.kernels):
        cotangents, expand = problem.cotangents(a, sketch)
        pulled = kernel.pull(identity, cotangents, expand, leading(sketch))
        basis = extended(problem, a, state.bases[a] if state.bases else None, pulled)
        old = state.images[a] if state.images else None
        bases.append(basis)
        fresh.append(_push(problem, a, basis.span, old))
        images.append(fresh[a] if old is None else xp.concat([old, fresh[a]], axis=1))
    pulled = _pull(problem, fresh)
    if have:
        pulled = {key: state.pulled[key] + norms for key, norms in pulled.items()}
    return replace(state, bases=tuple(bases), images=tuple(images), pulled=pulled)


def add_probes(problem: Problem, state: State, signs: Array) -> State:
    """Push probes, as bits (n, ⌈M/8⌉), through the kernels; for pairs in windows whose images are kept."""
    given, start = leading(signs), 0
    if not given:
        return state
    state = replace(state, signs=signs if state.signs is None else problem.xp.concat([state.signs, signs], axis=0))
    if not _pulls(problem):
        return replace(state, norms=append(state.norms, [_norms(problem, a, signs) for a in problem.indices]))
    most = _window(problem)
    while start < given:
        used = leading(state.window[0]) if state.window else 0
        if used >= most:
            state, used = replace(state, window=()), 0
        room = min(given - start, most - used)
        if given - start - room == 1:  # a window of one probe would have no pairs
            room = room - 1 if room > 1 else room + 1
        state = _extend_window(problem, state, signs[start : start + room, ...])
        start += room
    return state


def remainder_moments(problem: Problem, state: State) -> dict[Key, Moment]:
    """All moments but those of targets, from everything spent so far."""
    xp, keys = problem.xp, tuple(sorted(key for key in problem.needs if key[0] != "target"))
    pairs = tuple((key[1], key[-1]) for key in keys if key[0] != "trace")
    products = Products(xp, cotangent_expander(problem.kernels[0].J, 0), pairs)
    known = problem.kernels[0].compile(products)(state.signs, state.images)
    pulled = tuple((state.pulled[a, b], state.pulled[b, a]) for a, b in pairs)
    floors = tuple(ROUNDING * eps(xp, k.J.outputs, *k.J.params) for k in problem.kernels)
    rule = problem.on_host(_moments, bool(problem.groups.names), keys, floors)
    found = rule(state.norms, state.grams, pulled, *known)
    return {key: replace(Moment(*arrays), lean=LEAN) for key, arrays in zip(keys, found, strict=True)}


@dataclass(frozen=True)
class Products:
    """Inner products of probes and images; array-only."""

    xp: ModuleType
    expand: Expand
    pairs: tuple[tuple[int, int], ...]

    def __call__(self, signs: Array, images: tuple[Array, ...]) -> tuple[tuple[Array, ...], ...]:
        """For each kernel Zᵀω (parts, l, k) and ‖Z‖_F² (parts,); for each of `pairs` ‖Z_aᵀZ_b‖_F² (parts, parts)."""
        omega = self.expand(signs)
        heights = tuple(self._heights(omega, z) for z in images)
        norms = tuple(SquareNorms(self.xp, (0,), 1)(self.xp.reshape(z, (z.shape[0], -1)))[:, 0] for z in images)
        return heights, norms, tuple(self._squares(images[a], images[b]) for a, b in self.pairs)

    def _heights(self, omega: Array, z: Array) -> Array:
        """Zᵀω (parts, l, k), of Zᵀ (parts, k, M)."""
        parts, k, size = z.shape
        rows = Gram(self.xp, (0,), 1)(self.xp.reshape(z, (parts * k, size)), omega)[0, ...]
        return self.xp.permute_dims(self.xp.reshape(rows, (parts, k, omega.shape[0])), (0, 2, 1))

    def _squares(self, left: Array, right: Array) -> Array:
        parts, size = left.shape[0], left.shape[2]
        rows = [self.xp.reshape(z, (-1, size)) for z in (left, right)]
        gram = Gram(self.xp, (0,), 1)(*rows)[0, ...]
        return self.xp.sum(self.xp.reshape(gram, (parts, left.shape[1], parts, right.shape[1])) ** 2, axis=(1, 3))


def _moments(
    xp: ModuleType,
    named: bool,
    keys: tuple[Key, ...],
    floors: tuple[float, ...],
    norms: tuple[tuple[Array, ...], ...],
    grams: tuple[tuple[Array, ...], ...],
    pulled: tuple[tuple[Array, Array], ...],
    heights: tuple[Array, ...],
    traces: tuple[Array, ...],
    squares: tuple[Array, ...],
) -> tuple[tuple[Array, Array, Array], ...]:
    """(value, replicates, offset) of each moment in `keys`, from a state's arrays and `Products`; array-only.

    `floors` are for each kernel the share of ‖Jᵀω‖² up to which a remainder is but rounding, and counts as none.
    """
    rests = [_rest(xp, *arrays) for arrays in zip(floors, norms, heights, strict=True)]
    residuals, known = _residuals(xp, named, grams, heights), iter(zip(pulled, squares, strict=True))
    found = []
    for key in keys:
        a, b = key[1], key[-1]
        if key[0] == "trace":
            offset = whole_and_parts(xp, named, traces[a], 0)
            rest = mean_moment(xp, (whole_and_parts(xp, named, rests[a], 1),))
        else:
            (there, back), both = next(known)
            offset = _total(xp, named, there + back) - _total(xp, named, both)
            rest = _pairs(xp, [window[a] * window[b] for window in residuals])
        assert rest.replicates is not None
        offset = xp.astype(offset, rest.value.dtype, copy=False)
        found.append((offset + rest.value, offset[None, :] + rest.replicates, offset))
    return tuple(found)


def _rest(xp: ModuleType, floor: float, norms: tuple[Array, ...], heights: Array) -> Array:
    """‖Jᵀω‖² - ‖Zᵀω‖² (l, parts)."""
    raw = xp.concat(norms, axis=0)
    rest = raw - xp.astype(xp.sum(heights**2, axis=2).T, raw.dtype, copy=False)
    real = xp.mean(rest, axis=0) > floor * xp.mean(raw, axis=0)
    return xp.where(real[None, :], xp.maximum(rest, rest * 0), rest * 0)


def _total(xp: ModuleType, named: bool, squares: Array) -> Array:
    """(rows,) of squares by parts of both sides: all of them, and each part with itself."""
    whole = xp.reshape(xp.sum(squares), (1,))
    return xp.concat([whole, xp.linalg.diagonal(squares)], axis=0) if named else whole


def _residuals(
    xp: ModuleType, named: bool, grams: tuple[tuple[Array, ...], ...], heights: tuple[Array, ...]
) -> list[list[Array]]:
    """For each window, for each kernel (rows, w, w): e_ij."""
    start, residuals = 0, []
    for window in grams:
        stop = start + window[0].shape[1]
        mine = [known[:, start:stop, :] for known in heights]
        rests = [
            raw - xp.astype(h @ xp.permute_dims(h, (0, 2, 1)), raw.dtype, copy=False)
            for raw, h in zip(window, mine, strict=True)
        ]
        residuals.append([whole_and_parts(xp, named, rest, 0) for rest in rests])
        start = stop
    return residuals


def _pairs(xp: ModuleType, windows: list[Array]) -> Moment:
    """The mean over pairs i ≠ j within windows of q_ij (rows, w, w)."""
    sums, total = PairSums(), 0.0 * windows[0][:, 0, 0]
    for q in windows:
        (involving,), total = pair_sums(xp, q, (), (), total, diagonal=False)
        sums = sums.grown((), q.shape[1], (involving,), total, diagonal=False)
    return pair_moment(xp, sums.counts, sums.pairs, sums.involving, total)


def _push(problem: Problem, a: int, span: Span, old: Array | None) -> Array:
    """Zᵀ (parts, n, M): J_l Q_l for each part, a JVP each, for the vectors after those of `old` (parts, k, M)."""
    kernel, xp = problem.kernels[a], problem.xp
    vectors = span.since(0 if old is None else old.shape[1])
    pairs, part_of = zip(vectors, kernel.compact.params, strict=True), problem.part_of(a)
    ready = [xp.astype(problem.scaled(a, q), p.dtype, copy=False) for q, p in pairs]
    parts = []
    for part in range(problem.groups.count):
        tangents = tuple(q if owner == part else q * 0.0 for q, owner in zip(ready, part_of, strict=True))
        images = kernel.push(OutputImages(xp, problem.centre), tangents, leading(vectors))
        (image,) = span.turned(problem, None if old is None else (old[part, ...],), (images,))
        parts.append(image)
    return xp.stack(parts, axis=0)


def _pull(problem: Problem, images: list[Array]) -> dict[tuple[int, int], Array]:
    """‖J_bᵀZ_a‖_F² by parts of both, for new columns of all Z."""
    xp, pulled = problem.xp, {}
    for a, b in _pulls(problem):
        parts, n, size = images[a].shape
        rows = xp.reshape(images[a], (parts * n, size))
        cotangents, expand = problem.cotangents(b, xp.astype(rows, problem.kernels[b].J.outputs.dtype, copy=False))
        norms = problem.kernels[b].pull(problem.parameter_norms(b), cotangents, expand, parts * n)
        pulled[a, b] = xp.sum(xp.reshape(norms, (parts, n, parts)), axis=1)
    return pulled


def _norms(problem: Problem, a: int, signs: Array) -> Array:
    """‖Jᵀω‖² by part, (n, parts), reduced inside the adapter's loop."""
    cotangents, expand = problem.cotangents(a, signs)
    norms: Array = problem.kernels[a].pull(problem.parameter_norms(a), cotangents, expand, leading(signs))
    return norms


def _extend_window(problem: Problem, state: State, signs: Array) -> State:
    """Inner products of new images with each other and with those of the open window."""
    grams, images, norms = [], [], []
    for a, kernel in enumerate(problem.kernels):
        cotangents, expand = problem.cotangents(a, signs)
        pulled = kernel.pull(identity, cotangents, expand, leading(signs))
        step = problem.compiled(_border, problem.xp, problem.parameter_gram(a))
        old = (state.grams[-1][a], state.window[a]) if state.window else None
        gram, diagonal = step(old, pulled)
        grams.append(gram)
        norms.append(diagonal)
        images.append(join(problem.xp, state.window[a] if state.window else None, pulled))
    closed = state.grams[:-1] if state.window else state.grams
    return replace(state, grams=(*closed, tuple(grams)), window=tuple(images), norms=append(state.norms, norms))


def _border(xp: ModuleType, gram: Gram, old: tuple[Array, Blocks] | None, images: Blocks) -> tuple[Array, Array]:
    """The Gram matrix by part, grown by new images, and the squared norms of these, (n, parts); array-only."""
    own = gram(images, images)
    diagonal = xp.permute_dims(xp.linalg.diagonal(own), (1, 0))
    if old is None:
        return own, diagonal
    before, window = old
    across = gram(window, images)
    top = xp.concat([before, across], axis=2)
    bottom = xp.concat([xp.permute_dims(across, (0, 2, 1)), own], axis=2)
    return xp.concat([top, bottom], axis=1), diagonal


def _pulls(problem: Problem) -> list[tuple[int, int]]:
    """The pairs (a, b) of which ‖J_bᵀZ_a‖_F² is needed."""
    pairs = {(key[1], key[-1]) for key in problem.needs if key[0] in ("square", "cross")}
    return sorted(pairs | {(b, a) for a, b in pairs})


def _window(problem: Problem) -> int:
    """Probes whose images fit in half of the memory budget together, at least two."""
    return max(2, problem.memory // 2 // max(1, sum(image_bytes(problem, "vjp"))))
