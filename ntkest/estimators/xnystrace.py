"""XNysTrace: a Nyström approximation from all probes but one, and that one to measure what it leaves; for each probe.

On the side of the outputs, Ω (M×m): G = JᵀΩ = QR, Z = JQ; on the side of the parameters, V (P×m): G = JV = QR, Z = JᵀQ.
Both approximate the same spectrum at a VJP and a JVP a sample, and everything follows from m×m matrices: the trace, and
from the same data at no further pass ‖K‖_F² and products of kernels (`leaveout`).

The side decides what is orthonormalised and stored. That of the outputs does it in R^P, takes normal probes and keeps
Ω; that of the parameters in R^M, takes signs, which are made anew wherever they are needed, and is for models with
many more parameters than outputs. Products of two kernels need the outputs, where both live.

Prefer it where the spectrum decays; on a flat one it wastes a pass a sample. Unbiased for the trace, the squared norm
and products of kernels.

Reference: Epperly, Tropp, Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J.
Matrix Anal. Appl. 2024, section 2.3. The other moments, from the same data, are new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from ..linearization import Array, Blocks, accumulator, identity, is_concrete, leading, number
from ..probes import Probes, draw_normal_cotangents, draw_tangents, tangent_expander
from ..tallskinny import extend_basis
from ..tangents import Gram
from .hutchinson import push
from .images import OutputImages
from .leaveout import Factor, Samples, Sphere, product_samples, trace_samples
from .problem import Key, Moment, Problem, target_moments

MANY_PARAMETERS = 4
"""From this many parameters an output on, orthonormal bases are kept on the side of the outputs."""


@dataclass(frozen=True)
class State:
    """The sketches so far; one entry a kernel in each tuple."""

    probes: Array | None = None
    """(m, M): the probes of the outputs, centred if asked; None on the other side."""
    bases: tuple[Blocks, ...] = ()
    """Q, as rows: blocks (m, P_l), or one block (m, M)."""
    factors: tuple[Array, ...] = ()
    """R (m, m)."""
    images: tuple[Blocks, ...] = ()
    """Z, as rows: one block (m, M), or blocks (m, P_l)."""
    products: dict[tuple[int, int], Array] = field(default_factory=dict)
    """Z_aᵀZ_b (m, m)."""
    overlaps: Array | None = None
    """ΩᵀΩ (m, m)."""
    targets: dict[Key, Moment] = field(default_factory=dict)


@dataclass(frozen=True)
class XNysTrace:
    """The estimator, on the side that suits the problem."""

    name: str = "xnystrace"
    fewest: int = 4
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    parts: bool = False

    def passes(self, problem: Problem, samples: int) -> int:
        """A VJP and a JVP a sample and kernel."""
        return min(samples, _most(problem)) * self._each(problem) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """The number of samples that `passes` pay for; no more than the kernels can have rank."""
        return min((passes - problem.targets) // self._each(problem), _most(problem))

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` samples."""
        return self.passes(problem, want) - self.passes(problem, have)

    def _each(self, problem: Problem) -> int:
        return sum(1 + kernel.J.passes_per_jvp for kernel in problem.kernels)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Normal cotangents shared by all kernels, or sign tangents."""
        first, most = problem.kernels[0].J, _most(problem)
        start, stop = min(start, most), min(stop, most)
        if on_outputs(problem):
            return Probes(cotangents=draw_normal_cotangents(first, seed, start, stop))
        return Probes(tangents=(draw_tangents(first, seed, start, stop),))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Push new probes through, orthonormalise their images against the basis, and push what is new back."""
        if state is None:
            state = State(targets=target_moments(problem))
        if on_outputs(problem):
            state, omega = _with_probes(problem, state, probes.cotangents)
            if not omega.shape[0]:
                return state
            sketch: Callable[[int], Blocks] = lambda a: _pull(problem, a, omega)  # noqa: E731
            image: Callable[[int, Blocks], Blocks] = lambda a, basis: (push(problem, a, basis)[0],)  # noqa: E731
        else:
            assert probes.tangents is not None
            bits = probes.tangents[0]
            sketch = lambda a: (_push_signs(problem, a, bits),)  # noqa: E731
            image = lambda a, basis: _pull(problem, a, basis[0])  # noqa: E731
        bases, factors, new_images = [], [], []
        for a in range(len(problem.kernels)):
            old = (state.bases[a], state.factors[a]) if state.bases else None
            basis, factor = extend_basis(problem.xp, sketch(a), old)
            bases.append(basis)
            factors.append(factor)
            new_images.append(image(a, basis))
        return _grown(problem, state, bases, factors, new_images)

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means of leave-one-out samples."""
        keys = tuple(sorted(problem.needs - state.targets.keys()))
        pairs = tuple(_pair(key) for key in keys)
        compute = problem.compiled(_moments, problem.xp, keys, _dimension(problem))
        found = compute(state.factors, tuple(state.products[pair] for pair in pairs), state.overlaps)
        return {**{key: Moment(v, r, refits=f) for key, (v, r, f) in zip(keys, found, strict=True)}, **state.targets}


XNYSTRACE = XNysTrace()


def on_outputs(problem: Problem) -> bool:
    """Whether probes are drawn on the side of the outputs."""
    return len(problem.kernels) > 1 or problem.parameters(0) < MANY_PARAMETERS * problem.size


def _dimension(problem: Problem) -> int:
    """Of the space that normal probes live in."""
    return problem.size if problem.centre is None else problem.centre.rank


def _most(problem: Problem) -> int:
    """The largest rank that every kernel can have, after which there is nothing left to sample."""
    return max(1, min(_dimension(problem), *(problem.parameters(a) for a in range(len(problem.kernels)))))


def _pair(key: Key) -> tuple[int, int]:
    return key[1], key[-1]


def _with_probes(problem: Problem, state: State, omega: Array) -> tuple[State, Array]:
    """The state with new probes (k, M), centred, and those that are really new.

    A probe in the span of others has nothing left to measure with; it is left out, where values can be looked at.
    """
    xp = problem.xp
    omega = omega if problem.centre is None else problem.centre(xp, omega)
    gram = Gram(xp, (0,), 1)
    for _ in range(2):
        everything = omega if state.probes is None else xp.concat([state.probes, omega], axis=0)
        overlaps = gram(everything, everything)[0, ...]
        if not is_concrete(xp.sum(overlaps)):
            break
        have = everything.shape[0] - omega.shape[0]
        new = [i for i in _independent(overlaps) if i >= have]
        if len(new) == omega.shape[0]:
            break
        omega = xp.stack([everything[i, ...] for i in new], axis=0) if new else omega[:0, ...]
    return replace(state, probes=everything, overlaps=overlaps), omega


def _independent(overlaps: Array) -> list[int]:
    """Indices of rows that are not, to rounding, combinations of those before, from their Gram matrix (m, m)."""
    import numpy as np

    m = overlaps.shape[0]
    rest = np.asarray([[number(overlaps[i, j]) for j in range(m)] for i in range(m)])
    sizes = np.diagonal(rest).copy()
    kept = []
    for i in range(m):
        if rest[i, i] > 1e-10 * sizes[i]:
            kept.append(i)
            rest = rest - np.outer(rest[:, i], rest[i]) / rest[i, i]
    return kept


def _pull(problem: Problem, a: int, rows: Array) -> Blocks:
    """Jᵀ of rows (k, M), scaled."""
    kernel = problem.kernels[a]
    cotangents = problem.xp.astype(rows, kernel.J.outputs.dtype, copy=False)
    ready, expand = problem.cotangents(a, cotangents)
    return tuple(kernel.map_vjp(identity, ready, expand, leading(rows)))


def _push_signs(problem: Problem, a: int, bits: tuple[Array, ...]) -> Array:
    kernel = problem.kernels[a]
    expand = tangent_expander(kernel.J, problem.exponents[a])
    images: Array = kernel.map_jvp(OutputImages(problem.xp, problem.centre), bits, expand, leading(bits))
    return images


def _grown(
    problem: Problem, state: State, bases: list[Blocks], factors: list[Array], images: list[Blocks]
) -> State:
    """The state with new basis vectors and their images."""
    xp = problem.xp
    products = {}
    for a, b in sorted({_pair(key) for key in problem.needs if key[0] != "target"}):
        old = None if not state.images else (state.images[a], state.images[b], state.products[a, b])
        products[a, b] = problem.compiled(_products, xp)(images[a], images[b], old)
    joined = [bases, images]
    if state.bases:
        joined = [
            [tuple(xp.concat(pair, axis=0) for pair in zip(*both, strict=True)) for both in zip(was, new, strict=True)]
            for was, new in ((state.bases, bases), (state.images, images))
        ]
    return replace(
        state, bases=tuple(joined[0]), factors=tuple(factors), images=tuple(joined[1]), products=products
    )


def _products(xp: ModuleType, left: Blocks, right: Blocks, old: tuple[Blocks, Blocks, Array] | None) -> Array:
    """Z_aᵀZ_b with new rows of both, from those and the old (m, m)."""
    gram = Gram(xp, (0,) * len(left), 1)
    corner = gram(left, right)[0, ...]
    if old is None:
        return corner
    above, beside_it = gram(old[0], right)[0, ...], gram(left, old[1])[0, ...]
    return xp.concat(
        [xp.concat([old[2], above], axis=1), xp.concat([beside_it, corner], axis=1)],
        axis=0,
    )


def _moments(
    xp: ModuleType,
    keys: tuple[Key, ...],
    dimension: int,
    factors: tuple[Array, ...],
    products: tuple[Array, ...],
    overlaps: Array | None,
) -> tuple[tuple[Array, Array, Array], ...]:
    """Value (1,), replicates (m, 1) and refits (m, 1) for each key; array-only."""
    wide = accumulator(xp, factors[0])
    known = [Factor.of(xp, xp.astype(r, wide, copy=False)) for r in factors]
    sphere = Sphere(None if overlaps is None else xp.linalg.inv(overlaps), dimension)
    found = []
    for key, product in zip(keys, products, strict=True):
        a, b = _pair(key)
        if key[0] == "trace":
            samples = trace_samples(xp, known[a], product, sphere)
        else:
            samples = product_samples(xp, known[a], known[b], product, sphere)
        found.append(summarise(xp, samples))
    return tuple(found)


def summarise(xp: ModuleType, samples: Samples) -> tuple[Array, Array, Array]:
    """The mean (1,), the means without each sample (m, 1), and the estimates without each probe (m, 1)."""
    single, double = samples
    m = single.shape[0]
    total = xp.sum(single)
    refits = (xp.sum(double, axis=0) - xp.linalg.diagonal(double)) / (m - 1)
    return (total / m)[None], ((total - single) / (m - 1))[:, None], refits[:, None]
