"""XTrace: the range of K from all probes but one, and that one to measure what it leaves; for each probe.

KΩ = QR and L = JᵀQ: a VJP and a JVP a sample for the range, and a VJP for the trace on it. Norms and products of
kernels take KQ instead, four passes a sample, of which the trace comes free. Several kernels share one basis, of the
sum of their images. The basis lives in R^M, and for norms nothing of the size of the parameters is kept.

Prefer it where the spectrum has a gap, behind which it sees nothing at all; else XNysTrace does nearly as well from
two passes a sample. `xtrace-power` takes the range of K² instead, by one step of subspace iteration at two passes a
sample more: for norms of kernels with a few large eigenvalues before many small ones. Unbiased for the trace, the
squared norm and products of kernels.

Reference: Epperly, Tropp, Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J.
Matrix Anal. Appl. 2024, sections 2.1 and 2.2. The other moments are new.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from ..forecast import Sketch
from ..linearization import Array, Blocks, accumulator, numbers
from ..probes import Probes, draw_normal_cotangents
from ..tangents import join
from . import xnystrace
from .applied import apply, apply_kernel, pull, together, windows
from .leaveout import Factor
from .problem import Key, Moment, Problem, target_moments
from .projected import Action, Pair, Range, product_samples, trace_samples
from .sketches import (
    LeaveOneOut,
    Triple,
    add_probes,
    dimension,
    grow_basis,
    grow_products,
    keeps_gradients,
    most_samples,
    ritz_values,
    summarise,
)


@dataclass(frozen=True)
class State:
    """The sketch so far."""

    probes: Array | None = None
    """Ω as rows (m, M), centred if asked."""
    energies: tuple[Array, ...] = ()
    """ω_iᵀKω_i (m,) for each kernel."""
    images: tuple[Blocks, ...] = ()
    """KΩ as rows, one block (m, M) for each kernel."""
    weights: tuple[Array, ...] = ()
    """() for each kernel: what its images count for in the common basis."""
    basis: Blocks | None = None
    """Q as rows, one block (m, M)."""
    factor: Array | None = None
    """R (m, m), of the images that the basis is of: KΩ, or K times the last of `steps` and that basis' own factors."""
    steps: tuple[tuple[Blocks, Array], ...] = ()
    """Bases and factors on the way: of KΩ, of K times the first basis, …"""
    pulled: tuple[Blocks, ...] = ()
    """JᵀQ as rows, blocks (m, P_l), for each kernel; empty where norms or products are wanted."""
    applied: tuple[Blocks, ...] = ()
    """KQ as rows, one block (m, M), for each kernel; empty where only traces are wanted."""
    targets: dict[Key, Moment] = field(default_factory=dict)


@dataclass(frozen=True)
class XTrace(LeaveOneOut):
    """The estimator."""

    name: str = "xtrace"
    power: int = 1
    """How often K is applied to the probes for the basis."""

    def split(self, problem: Problem) -> tuple[int, int]:
        """Two VJPs and a JVP; a JVP more for norms and products, and one of each for a further power."""
        return self.power + 1, self.power + 1 if problem.pairs else self.power

    def kept(self, problem: Problem) -> tuple[int, int]:
        """Probes, images and bases; and for norms KQ, else JᵀQ."""
        outputs = 2 + self.power
        return (outputs + 1, 0) if problem.pairs else (outputs, 1)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Normal cotangents shared by all kernels."""
        most = most_samples(problem)
        return Probes(cotangents=draw_normal_cotangents(problem.kernels[0].J, seed, min(start, most), min(stop, most)))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Apply K to the new probes, and to what their images add to the basis."""
        if state is None:
            state = State(targets=target_moments(problem))
        everything, new, _ = add_probes(problem, state.probes, probes.cotangents)
        results = [_apply(problem, a, new) for a in problem.indices]
        energies = tuple(energy for energy, _ in results)
        return _grown(problem, state, everything, energies, tuple((image,) for _, image in results), self.power)

    def adopt(self, problem: Problem, sketch: xnystrace.State, samples: int) -> State:
        """Go on from the first samples of an XNysTrace sketch, at the price of `adoption`.

        Of those KΩ = ZR is known.
        """
        assert sketch.probes is not None
        first = problem.compiled(_first_of, problem.xp, samples)
        probes, energies, images = first(sketch.probes, sketch.factors, sketch.images)
        return _grown(problem, State(targets=sketch.targets), probes, energies, images, self.power)

    def adoption(self, problem: Problem, samples: int) -> int:
        """Passes that so many samples cost beyond those of a sketch that has as many."""
        return samples * (self.each(problem) - xnystrace.XNYSTRACE.each(problem))

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means of leave-one-out samples."""
        keys = tuple(sorted(problem.needs - state.targets.keys()))
        products = problem.kernels[0].compile(Products(problem.xp, keys))
        found = problem.on_host(_moments, keys, dimension(problem))(
            _whole(state),
            state.energies,
            products(state.probes, state.images, state.basis, state.pulled, state.applied),
        )
        assert state.factor is not None
        lean = _lean(state.factor.shape[0])
        moments = {key: Moment(v, r, refits=f, lean=lean) for key, (v, r, f) in zip(keys, found, strict=True)}
        return {**moments, **state.targets}

    def sketch(self, problem: Problem, state: State, a: int) -> Sketch | None:
        """What the samples show of kernel a's spectrum, on the host; None if they have all of its range."""
        xp = problem.xp
        assert state.basis is not None
        if state.applied:
            restricted = grow_products(xp, False, None, state.basis, state.applied[a])
        else:
            restricted = grow_products(xp, True, None, state.pulled[a], state.pulled[a])
        values = ritz_values(_whole(state), restricted)
        if values is None:
            return None
        only = replace(problem, needs=frozenset({("trace", a)}))
        trace = self.moments(only, replace(state, targets={}))["trace", a].value
        return Sketch(values, float(numbers(trace)[0]), None, dimension(problem), power=2 * self.power)


XTRACE = XTrace()
XTRACE_POWER = XTrace(name="xtrace-power", power=2)


def _first_of(
    xp: ModuleType, samples: int, probes: Array, factors: tuple[Array, ...], images: tuple[Blocks, ...]
) -> tuple[Array, tuple[Array, ...], tuple[Blocks, ...]]:
    """The first probes of an XNysTrace sketch, with ωᵀKω and Kω for each kernel; array-only."""
    own = [r[:, :samples] for r in factors]
    energies = tuple(xp.sum(r * r, axis=0) for r in own)
    pairs = zip(own, images, strict=True)  # images may be narrower than the factors
    return probes[:samples, :], energies, tuple((r.T @ xp.astype(z, r.dtype, copy=False),) for r, (z,) in pairs)


def _lean(samples: int) -> float:
    """`Moment.lean`: 1/2 for 8 samples, and less for more of them, of which the jackknife gets too wide.

    Of 4 or 5, where the sketch has all of the spectrum but one large eigenvalue, the samples may all be small by luck:
    at 1/2 the 95 % interval of the norm covers .80 of a kernel of rank 5, at 3/4 it covers .92.
    """
    return min(0.75, max(0.25 + 2 / samples, 0.125 + 3 / samples))


def _grown(
    problem: Problem, state: State, probes: Array, energies: tuple[Array, ...], images: tuple[Blocks, ...], power: int
) -> State:
    """The state with all `probes`, given ω_iᵀKω_i and Kω_i of the new ones."""
    xp, kernels = problem.xp, problem.indices
    weights = state.weights
    if not weights and len(problem.kernels) > 1:
        weights = tuple(_weight(xp, image) for (image,) in images)
    summed, steps = _summed([image for (image,) in images], weights), []
    for step in range(power - 1):
        old, triangle = state.steps[step] if state.steps else (None, None)
        fresh, triangle = grow_basis(problem, old, triangle, (summed,))
        steps.append((join(xp, old, fresh), triangle))
        summed = _summed([_apply(problem, a, fresh[0])[1] for a in kernels], weights)
    basis, factor = grow_basis(problem, state.basis, state.factor, (summed,))
    pulled: tuple[Blocks, ...] = ()
    applied: tuple[Blocks, ...] = ()
    if problem.pairs:
        applied = tuple((_apply(problem, a, basis[0])[1],) for a in kernels)
    else:
        pulled = tuple(pull(problem, a, basis[0]) for a in kernels)
    if state.basis is not None:
        energies = tuple(xp.concat(pair, axis=0) for pair in zip(state.energies, energies, strict=True))
        images, pulled, applied = (
            tuple(join(xp, a, b) for a, b in zip(old, new, strict=True))
            for old, new in ((state.images, images), (state.pulled, pulled), (state.applied, applied))
        )
        basis = join(xp, state.basis, basis)
    return replace(
        state,
        probes=probes,
        energies=energies,
        images=images,
        weights=weights,
        basis=basis,
        factor=factor,
        steps=tuple(steps),
        pulled=pulled,
        applied=applied,
    )


def _summed(images: list[Array], weights: tuple[Array, ...]) -> Array:
    """What the common basis is of; of one kernel its images, which have no weight."""
    if not weights:
        return images[0]
    summed = images[0] * weights[0]
    for image, weight in zip(images[1:], weights[1:], strict=True):
        summed = summed + image * weight
    return summed


def _whole(state: State) -> Array:
    """R of K^p Ω = QR."""
    assert state.factor is not None
    whole = state.factor
    for _, factor in reversed(state.steps):
        whole = whole @ factor
    return whole


def _apply(problem: Problem, a: int, rows: Array) -> tuple[Array, Array]:
    """ωᵀKω (k,) and Kω (k, M), a window at a time."""
    xp = problem.xp
    if not keeps_gradients(problem):
        images = apply(problem, a, rows)
        return problem.compiled(_energies, xp)(rows, images), images
    results = [apply_kernel(problem, a, window) for window in windows(problem, a, rows)]
    return together(xp, [norms[:, 0] for norms, _ in results]), together(xp, [whole for _, (whole, *_) in results])


def _energies(xp: ModuleType, rows: Array, images: Array) -> Array:
    """⟨ω, Kω⟩ (k,) of rows of each; array-only."""
    wide = accumulator(xp, images)
    return xp.sum(xp.astype(rows, wide, copy=False) * xp.astype(images, wide, copy=False), axis=1)


def _weight(xp: ModuleType, images: Array) -> Array:
    """The inverse length of the first image, so that every kernel has its say in a common basis, whatever its scale."""
    square = xp.sum(images[0, :] * images[0, :])
    return xp.where(square > 0, xp.where(square > 0, square, square * 0 + 1) ** -0.5, square * 0)


@dataclass(frozen=True)
class Products:
    """Inner products (m, m) of what a state holds, for the moments in `keys`; array-only."""

    xp: ModuleType
    keys: tuple[Key, ...]

    def __call__(
        self,
        probes: Array,
        images: tuple[Blocks, ...],
        basis: Blocks,
        pulled: tuple[Blocks, ...],
        applied: tuple[Blocks, ...],
    ) -> tuple[Any, ...]:
        """QᵀΩ and ‖ω‖²; QᵀKQ and QᵀKΩ for each kernel; and for each key with two kernels those of a `Pair`."""
        own = [self._inner(basis, z) for z in applied] or [self._inner(g, g) for g in pulled]
        actions = tuple((h, self._inner(basis, y)) for h, y in zip(own, images, strict=True))
        pairs = tuple(self._pair(images, applied, key[1], key[-1]) for key in self.keys if key[0] != "trace")
        return self._inner(basis, (probes,)), self._norms((probes,), (probes,)), actions, pairs

    def _pair(self, y: tuple[Blocks, ...], z: tuple[Blocks, ...], a: int, b: int) -> tuple[Array, ...]:
        return self._inner(z[a], z[b]), self._inner(y[a], z[b]), self._inner(y[b], z[a]), self._norms(y[a], y[b])

    def _inner(self, left: Blocks, right: Blocks) -> Array:
        found = grow_products(self.xp, left is right, None, left, right)
        return self.xp.astype(found, accumulator(self.xp, found), copy=False)

    def _norms(self, left: Blocks, right: Blocks) -> Array:
        return self.xp.linalg.diagonal(self._inner(left, right))


def _moments(
    xp: ModuleType,
    keys: tuple[Key, ...],
    dimension: int,
    factor: Array,
    energies: tuple[Array, ...],
    products: tuple[Any, ...],
) -> tuple[Triple, ...]:
    """What `summarise` makes of each key, from R, ω_iᵀKω_i and `Products`; array-only."""
    shared, norms, known, pairs = products
    wide, rest = accumulator(xp, factor), iter(pairs)
    basis = Range(Factor.of(xp, xp.astype(factor, wide, copy=False)).s, shared, norms, dimension)
    actions = [
        Action((h + h.T) / 2.0, g, xp.astype(energy, wide, copy=False))
        for (h, g), energy in zip(known, energies, strict=True)
    ]
    found = []
    for key in keys:
        a, b = key[1], key[-1]
        if key[0] == "trace":
            samples = trace_samples(xp, basis, actions[a])
        else:
            samples = product_samples(xp, basis, actions[a], actions[b], Pair(*next(rest)))
        found.append(summarise(xp, samples))
    return tuple(found)
