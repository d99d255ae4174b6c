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

from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np

from ..forecast import Sketch
from ..linearization import Array, Blocks, accumulator, leading, numbers
from ..probes import Probes, draw_normal_cotangents, draw_tangents, tangent_expander
from ..tangents import join
from . import onesided
from .hutchinson import push
from .images import OutputImages
from .leaveout import Factor, Sphere, product_samples, trace_samples
from .onesided import FORWARD, REVERSE, OneSided
from .problem import Key, Moment, Problem, target_moments
from .sketches import (
    LeaveOneOut,
    Triple,
    add_probes,
    dimension,
    grow_products,
    most_samples,
    pull,
    ritz_values,
    summarise,
)
from .spans import Span, extend_span

MANY_PARAMETERS = 4
"""From this many parameters an output on, orthonormal bases are kept on the side of the outputs."""


@dataclass(frozen=True)
class State:
    """The sketches so far; one entry a kernel in each tuple."""

    probes: Array | None = None
    """(m, M): the probes of the outputs, centred if asked; None on the other side."""
    bases: tuple[Span, ...] = ()
    """Q, or what stands for it, as rows: blocks (m, P_l), or one block (m, M)."""
    factors: tuple[Array, ...] = ()
    """R (m, m)."""
    images: tuple[Blocks, ...] = ()
    """Z = JQ or JᵀQ, as rows: one block (m, M), or blocks (m, P_l)."""
    products: dict[tuple[int, int], Array] = field(default_factory=dict)
    """Z_aᵀZ_b (m, m)."""
    overlaps: Array | None = None
    """ΩᵀΩ (m, m)."""
    targets: dict[Key, Moment] = field(default_factory=dict)


@dataclass(frozen=True)
class Captured:
    """A state of which the newest images have not been pushed back yet."""

    state: State
    """With all probes, and for the rest what was there before."""
    bases: tuple[Span, ...]
    """Of all probes."""
    factors: tuple[Array, ...]
    """R of all probes."""


@dataclass(frozen=True)
class XNysTrace(LeaveOneOut):
    """The estimator, on the side that suits the problem."""

    name: str = "xnystrace"

    def split(self, problem: Problem) -> tuple[int, int]:
        """One of each."""
        return 1, 1

    def kept(self, problem: Problem) -> tuple[int, int]:
        """Probes and images of outputs, gradients and basis; half of that on the side of the parameters."""
        copies = 2 if self.on_outputs(problem) else 1
        return copies, copies

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Normal cotangents shared by all kernels, or sign tangents."""
        first, most = problem.kernels[0].J, most_samples(problem)
        start, stop = min(start, most), min(stop, most)
        if self.on_outputs(problem):
            return Probes(cotangents=draw_normal_cotangents(first, seed, start, stop))
        return Probes(tangents=(draw_tangents(first, seed, start, stop),))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Push new probes through, orthonormalise their images against the basis, and push what is new back."""
        return self.complete(problem, self.capture(problem, state, probes))

    def capture(self, problem: Problem, sketch: State | Captured | None, probes: Probes) -> Captured:
        """The first half of `extend`, at one of its two passes a sample; as often as wanted before the second."""
        waiting = sketch if isinstance(sketch, Captured) else None
        state = sketch.state if isinstance(sketch, Captured) else sketch
        if state is None:
            state = State(targets=target_moments(problem))
        outputs = self.on_outputs(problem)
        omega = None
        if outputs:
            have = 0 if state.probes is None else state.probes.shape[0]
            everything, overlaps = add_probes(problem, state.probes, probes.cotangents)
            state, omega = replace(state, probes=everything, overlaps=overlaps), everything[have:, :]
        bases, factors = [], []
        for a in problem.indices:
            images = pull(problem, a, omega) if outputs else (_push_signs(problem, a, probes),)
            newest = waiting or state
            basis, factor = (newest.bases[a], newest.factors[a]) if newest.bases else (None, None)
            basis, factor, turn = extend_span(problem, basis, factor, images, loose=outputs)
            if turn is not None:
                state = _turned(problem.xp, state, a, turn)
            bases.append(basis)
            factors.append(factor)
        return Captured(state, tuple(bases), tuple(factors))

    def complete(self, problem: Problem, captured: Captured) -> State:
        """The second half: push what is new in the bases back."""
        images: list[Blocks] = []
        for a, basis in enumerate(captured.bases):
            old = captured.state.images[a] if captured.state.images else None
            new = basis.since(0 if old is None else old[0].shape[0])
            found = (push(problem, a, new)[0],) if self.on_outputs(problem) else pull(problem, a, new[0])
            images.append(basis.turned(problem.xp, old, found))
        return _grown(problem, captured, images)

    def one_sided(self, problem: Problem, sketch: State | Captured) -> tuple[OneSided, onesided.State]:
        """The estimator of traces from the images of the probes alone, and its state with all of them, at no pass.

        In reverse the normal probes count as probes on a sphere; sign probes forward are those of forward itself.
        """
        state, xp = (sketch.state if isinstance(sketch, Captured) else sketch), problem.xp
        norms = [xp.sum(r * r, axis=0)[:, None] for r in sketch.factors]
        if not self.on_outputs(problem):
            return FORWARD, onesided.State(norms=tuple((norm,) for norm in norms), targets=state.targets)
        assert state.overlaps is not None
        scale = (dimension(problem) / xp.linalg.diagonal(state.overlaps))[:, None]
        return REVERSE, onesided.State(norms=tuple((norm * scale,) for norm in norms), targets=state.targets)

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """Means of leave-one-out samples."""
        keys = tuple(sorted(problem.needs - state.targets.keys()))
        products = tuple(state.products[key[1], key[-1]] for key in keys)
        found = problem.compiled(_moments, problem.xp, keys, dimension(problem))(
            state.factors, products, state.overlaps
        )
        return {**{key: Moment(v, r, refits=f) for key, (v, r, f) in zip(keys, found, strict=True)}, **state.targets}

    def on_outputs(self, problem: Problem) -> bool:
        """Whether probes are drawn on the side of the outputs."""
        return len(problem.kernels) > 1 or problem.parameters(0) < MANY_PARAMETERS * problem.size

    def sketch(self, problem: Problem, state: State, a: int) -> Sketch | None:
        """What the samples show of kernel a's spectrum, on the host; None if they have all of its range."""
        values = ritz_values(state.factors[a], state.products[a, a])
        if values is None:
            return None
        import array_api_compat.numpy as np_namespace  # not with ntkest: it takes its time

        known = Factor.of(np_namespace, numbers(state.factors[a]))
        inverse = None if state.overlaps is None else np.linalg.inv(numbers(state.overlaps))
        sphere = Sphere(inverse, dimension(problem))
        single, _ = trace_samples(np_namespace, known, numbers(state.products[a, a]), sphere)
        apart = ~np.eye(len(values), dtype=bool)
        # products of what two images have beside all the others: their squares have ‖R‖_F² as their mean
        left = known.c * np.outer(known.d, known.d) / np.maximum(1.0 - np.where(apart, known.c, 0.0) ** 2, 1e-12)
        residual = float(np.mean(left[apart] ** 2)) if len(values) > 1 else None
        return Sketch(values, float(np.mean(single)), residual, dimension(problem))


XNYSTRACE = XNysTrace()


def _push_signs(problem: Problem, a: int, probes: Probes) -> Array:
    kernel = problem.kernels[a]
    assert probes.tangents is not None
    bits, expand = probes.tangents[a], tangent_expander(kernel.J, problem.exponents[a])
    images: Array = kernel.map_jvp(OutputImages(problem.xp, problem.centre), bits, expand, leading(bits))
    return images


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


def _grown(problem: Problem, captured: Captured, images: list[Blocks]) -> State:
    """The state with new basis vectors and their images."""
    state, xp, products = captured.state, problem.xp, {}
    for a, b in sorted({(key[1], key[-1]) for key in problem.needs if key[0] != "target"}):
        old = (state.images[a], state.images[b], state.products[a, b]) if state.images else None
        products[a, b] = problem.compiled(grow_products, xp, a == b)(old, images[a], images[b])
    return replace(
        state,
        bases=captured.bases,
        factors=captured.factors,
        images=tuple(join(xp, *pair) for pair in zip(state.images or (None,) * len(images), images, strict=True)),
        products=products,
    )


def _moments(
    xp: ModuleType,
    keys: tuple[Key, ...],
    dimension: int,
    factors: tuple[Array, ...],
    products: tuple[Array, ...],
    overlaps: Array | None,
) -> tuple[Triple, ...]:
    """What `summarise` makes of each key; array-only."""
    wide = accumulator(xp, factors[0])
    known = [Factor.of(xp, xp.astype(r, wide, copy=False)) for r in factors]
    sphere = Sphere(None if overlaps is None else xp.linalg.inv(overlaps), dimension)
    found = []
    for key, product in zip(keys, products, strict=True):
        a, b = key[1], key[-1]
        if key[0] == "trace":
            samples = trace_samples(xp, known[a], product, sphere)
        else:
            samples = product_samples(xp, known[a], known[b], product, sphere)
        found.append(summarise(xp, samples))
    return tuple(found)
