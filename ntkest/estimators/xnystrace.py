"""XNysTrace: a Nyström approximation from all probes but one, and that one to measure what it leaves; for each probe.

With Ω (M×m), G = JᵀΩ = QR and Z = JQ: ZZᵀ approximates K at a VJP and a JVP a sample, and everything follows from m×m
matrices: the trace, and from the same data at no further pass ‖K‖_F² and products of kernels (`leaveout`).

There are two ways to Z and R. Where parameters are not many more than outputs, G is kept and orthonormalised, which
loses no digits (`spans`). Where they are, as in most networks, G is dropped: both follow from KΩ (`kernelimages`).

Prefer it where the spectrum decays; on a flat one it wastes a pass a sample. Unbiased for the trace, the squared norm
and products of kernels.

Reference: Epperly, Tropp, Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J.
Matrix Anal. Appl. 2024, section 2.3. The other moments, from the same data, are new.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType

import numpy as np

from ..forecast import Sketch
from ..linearization import Array, Blocks, accumulator, numbers
from ..probes import Probes, draw_normal_cotangents
from ..tangents import join
from . import onesided
from .applied import apply, pull, push
from .kernelimages import factored_images
from .leaveout import Factor, Sphere, product_samples, trace_samples
from .problem import Key, Moment, Problem, target_moments
from .sketches import (
    LeaveOneOut,
    Triple,
    add_probes,
    dimension,
    grow_products,
    keeps_gradients,
    most_samples,
    ritz_values,
    summarise,
)
from .spans import Span, extend_span


@dataclass(frozen=True)
class State:
    """The sketches so far; one entry a kernel in each tuple."""

    probes: Array | None = None
    """Ω as rows (m, M), centred if asked."""
    bases: tuple[Span, ...] = ()
    """Q, or what stands for it, as rows: blocks (m, P_l). Empty where gradients are not kept."""
    factors: tuple[Array, ...] = ()
    """R (m, m)."""
    images: tuple[Blocks, ...] = ()
    """Z = JQ as rows, one block (m, M)."""
    products: dict[tuple[int, int], Array] = field(default_factory=dict)
    """Z_aᵀZ_b (m, m)."""
    overlaps: Array | None = None
    """ΩᵀΩ (m, m)."""
    targets: dict[Key, Moment] = field(default_factory=dict)


@dataclass(frozen=True)
class Captured:
    """A state and gradients of further probes, which have not been pushed back yet."""

    state: State
    """With all probes, and for the rest what was there before."""
    bases: tuple[Span, ...] = ()
    """Of all probes."""
    factors: tuple[Array, ...] = ()
    """R of all probes."""
    gradients: tuple[Blocks, ...] = ()
    """Of further probes, where there are no bases."""


@dataclass(frozen=True)
class XNysTrace(LeaveOneOut):
    """The estimator, the way that suits the problem."""

    name: str = "xnystrace"

    def split(self, problem: Problem) -> tuple[int, int]:
        """One of each."""
        return 1, 1

    def kept(self, problem: Problem) -> tuple[int, int]:
        """Probes and images of outputs; gradients and basis, unless they are dropped."""
        return 2, 2 if keeps_gradients(problem) else 0

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Normal cotangents shared by all kernels."""
        most = most_samples(problem)
        return Probes(cotangents=draw_normal_cotangents(problem.kernels[0].J, seed, min(start, most), min(stop, most)))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Push new probes through, and back what they add."""
        if keeps_gradients(problem):
            return self.complete(problem, self.capture(problem, state, probes))
        state, omega = _with_probes(problem, state, probes)
        if not omega.shape[0]:
            return state
        return _applied(problem, state, omega, [apply(problem, a, omega) for a in problem.indices])

    def capture(self, problem: Problem, sketch: State | Captured | None, probes: Probes) -> Captured:
        """The first half of `extend`, at one of its two passes a sample; as often as wanted before the second."""
        waiting = sketch if isinstance(sketch, Captured) else None
        state, omega = _with_probes(problem, sketch.state if isinstance(sketch, Captured) else sketch, probes)
        found = [pull(problem, a, omega) for a in problem.indices]
        if not keeps_gradients(problem):
            before = waiting.gradients if waiting else (None,) * len(found)
            return Captured(state, gradients=tuple(map(partial(join, problem.xp), before, found)))
        bases, factors = [], []
        for a, gradients in enumerate(found):
            newest = waiting or state
            basis, factor = (newest.bases[a], newest.factors[a]) if newest.bases else (None, None)
            basis, factor, turn = extend_span(problem, basis, factor, gradients)
            if turn is not None:
                state = _turned(problem.xp, state, a, turn)
            bases.append(basis)
            factors.append(factor)
        return Captured(state, tuple(bases), tuple(factors))

    def complete(self, problem: Problem, captured: Captured) -> State:
        """The second half: push back what is new."""
        if captured.gradients:
            images = [push(problem, a, gradients)[0] for a, gradients in enumerate(captured.gradients)]
            assert captured.state.probes is not None
            return _applied(problem, captured.state, captured.state.probes[-images[0].shape[0] :, :], images)
        found: list[Blocks] = []
        for a, basis in enumerate(captured.bases):
            old = captured.state.images[a] if captured.state.images else None
            new = basis.since(0 if old is None else old[0].shape[0])
            found.append(basis.turned(problem, old, (push(problem, a, new)[0],)))
        return _grown(problem, replace(captured.state, bases=captured.bases), captured.factors, found)

    def one_sided(self, problem: Problem, sketch: State | Captured) -> onesided.State:
        """The state of `reverse` that the gradients of all probes make, at no pass: as if they were on a sphere."""
        state, xp = (sketch.state if isinstance(sketch, Captured) else sketch), problem.xp
        norms: list[Array] = []
        for a in problem.indices:
            known = sketch.factors or state.factors
            pieces = [xp.sum(known[a] * known[a], axis=0)] if known else []
            if isinstance(sketch, Captured) and sketch.gradients:
                pieces.append(problem.compiled(problem.parameter_norms(a))(sketch.gradients[a])[:, 0])
            norms.append(xp.concat(pieces, axis=0)[:, None])
        assert state.overlaps is not None
        scale = (dimension(problem) / xp.linalg.diagonal(state.overlaps))[:, None]
        return onesided.State(norms=tuple((norm * scale,) for norm in norms), targets=state.targets)

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means of leave-one-out samples."""
        keys = tuple(sorted(problem.needs - state.targets.keys()))
        products = tuple(state.products[key[1], key[-1]] for key in keys)
        found = problem.on_host(_moments, keys, dimension(problem), keeps_gradients(problem))(
            state.factors, products, state.overlaps
        )
        rounding = _rounding(problem, state)
        moments = {key: Moment(v, r, refits=f, rounding=rounding) for key, (v, r, f) in zip(keys, found, strict=True)}
        return {**moments, **state.targets}

    def sketch(self, problem: Problem, state: State, a: int) -> Sketch | None:
        """What the samples show of kernel a's spectrum, on the host; None if they have all of its range."""
        values = ritz_values(state.factors[a], state.products[a, a])
        if values is None:
            return None
        import array_api_compat.numpy as np_namespace  # not with ntkest: it takes its time

        known = Factor.of(np_namespace, numbers(state.factors[a]))
        assert state.overlaps is not None
        sphere = Sphere(np.linalg.inv(numbers(state.overlaps)), dimension(problem))
        single, _ = trace_samples(np_namespace, known, numbers(state.products[a, a]), sphere)
        apart = ~np.eye(len(values), dtype=bool)
        # products of what two images have beside all the others: their squares have ‖R‖_F² as their mean
        left = known.c * np.outer(known.d, known.d) / np.maximum(1.0 - np.where(apart, known.c, 0.0) ** 2, 1e-12)
        residual = float(np.mean(left[apart] ** 2)) if len(values) > 1 else None
        return Sketch(values, float(np.mean(single)), residual, dimension(problem))


XNYSTRACE = XNysTrace()


def _rounding(problem: Problem, state: State) -> float:
    """`Moment.rounding`: without gradients each direction is cut off by some machine epsilons of the largest.

    Where kernels of rank 5 had no more to give, traces and norms in float32 were off by 3 to 5 mε in the median of 60,
    and one in ten by 7 to 11 mε, from m = 10 to 55 samples.
    """
    return 1.0 if keeps_gradients(problem) else 2.0 * state.factors[0].shape[0]


def _with_probes(problem: Problem, state: State | None, probes: Probes) -> tuple[State, Array]:
    """The state with new probes, and these (k, M), centred if asked."""
    if state is None:
        state = State(targets=target_moments(problem))
    everything, new, overlaps = add_probes(problem, state.probes, probes.cotangents)
    return replace(state, probes=everything, overlaps=overlaps), new


def _applied(problem: Problem, state: State, omega: Array, images: list[Array]) -> State:
    """The state with images Kω of its newest probes ω (k, M), one array (k, M) a kernel."""
    factors, fresh = [], []
    for a, image in enumerate(images):
        r, old = (state.factors[a], state.images[a][0]) if state.factors else (None, None)
        factor, z = factored_images(problem, a, r, old, omega, image)
        factors.append(factor)
        fresh.append((z,))
    return _grown(problem, state, tuple(factors), fresh)


def _turned(xp: ModuleType, state: State, a: int, turn: Array) -> State:
    """The state after kernel a's basis was made anew: a vector of it stands for those up to it in the one before."""
    if not state.images:
        return state
    have = state.images[a][0].shape[0]
    turn = turn[:have, :have]
    turned = tuple(xp.astype(turn, block.dtype, copy=False) @ block for block in state.images[a])
    products = {}
    for (left, right), product in state.products.items():
        turn = xp.astype(turn, product.dtype, copy=False)
        product = turn @ product if left == a else product
        products[left, right] = product @ turn.T if right == a else product
    images = tuple(turned if b == a else old for b, old in enumerate(state.images))
    return replace(state, images=images, products=products)


def _grown(problem: Problem, state: State, factors: tuple[Array, ...], images: list[Blocks]) -> State:
    """The state with R of all probes and the images of new basis vectors."""
    xp, products = problem.xp, {}
    for a, b in sorted({(key[1], key[-1]) for key in problem.needs if key[0] != "target"}):
        old = (state.images[a], state.images[b], state.products[a, b]) if state.images else None
        products[a, b] = problem.compiled(grow_products, xp, a == b)(old, images[a], images[b])
    every = tuple(join(xp, *pair) for pair in zip(state.images or (None,) * len(images), images, strict=True))
    return replace(state, factors=factors, images=every, products=products)


def _moments(
    xp: ModuleType,
    keys: tuple[Key, ...],
    dimension: int,
    complete: bool,
    factors: tuple[Array, ...],
    products: tuple[Array, ...],
    overlaps: Array,
) -> tuple[Triple, ...]:
    """What `summarise` makes of each key; `complete` says that the sketch lost nothing of its images; array-only."""
    wide = accumulator(xp, factors[0])
    known = [Factor.of(xp, xp.astype(r, wide, copy=False)) for r in factors]
    sphere = Sphere(xp.linalg.inv(overlaps), dimension, complete and overlaps.shape[0] == dimension)
    found = []
    for key, product in zip(keys, products, strict=True):
        a, b = key[1], key[-1]
        if key[0] == "trace":
            samples = trace_samples(xp, known[a], product, sphere)
        else:
            samples = product_samples(xp, known[a], known[b], product, sphere)
        found.append(summarise(xp, samples))
    return tuple(found)
