"""Hutch++: the dominant subspace exactly, the rest by one-sided probes.

With an orthonormal Q (M×k) that captures the range of K, P = I - QQᵀ, and probes ω:

* tr K = ‖JᵀQ‖_F² + E‖JᵀPω‖²;
* ⟨K₁, K₂⟩ = 2⟨K₁Q, K₂Q⟩ - ⟨QᵀK₁Q, QᵀK₂Q⟩ + ⟨PK₁P, PK₂P⟩, the last term being the mean over i ≠ j of
  ⟨J₁ᵀPω_i, J₁ᵀPω_j⟩ ⟨J₂ᵀPω_i, J₂ᵀPω_j⟩; with K₁ = K₂ that is ‖K‖_F².

``hutch++`` takes Q = orth(KS) and pays 3k + l passes for a trace; ``hutch++jv`` takes Q = orth(JV), at 2k + l. Both
pay k more for norms and products. Given Q every term is unbiased. With several kernels Q has an equal share of
columns from each. Prefer it where the spectrum decays fast and the budget is not small.

Reference: Meyer, Musco, Musco, Woodruff, "Hutch++: optimal stochastic trace estimation", SOSA 2021, Algorithm 1. The
one-sided remainder, the range from JV and the form for norms and products use K = JJᵀ and are not in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

from ..linearization import Array, Expand, beside, eps, leading, scalar_dtype
from ..probes import (
    SKETCH,
    TANGENT_SKETCH,
    Centre,
    Probes,
    cotangent_expander,
    draw_cotangents,
    draw_tangents,
    tangent_expander,
)
from .applied import apply_kernel
from .exact import UnitCotangents
from .images import OutputImages, RowGram, row_gram
from .onesided import REVERSE
from .problem import Key, Moment, Problem, target_moments


@dataclass(frozen=True)
class State:
    """The subspace, what is known on it, and the one-sided run on its complement."""

    basis: Array
    """Qᵀ, (k, M)."""
    norms: tuple[Array, ...]
    """For each kernel ‖J_lᵀQ‖_F² (rows,)."""
    images: tuple[tuple[Array, ...], ...] | None
    """For each kernel K Q as (k, M) for the whole and each part; None where only traces are wanted."""
    signs: Array = None
    """Bits of the remainder's probes."""
    remainder: Any = None
    """State of the one-sided estimator on the complement."""
    targets: dict[Key, Moment] = field(default_factory=dict)


@dataclass(frozen=True)
class HutchPP:
    """Both forms; `sketch` says whether the range is taken of KS or of JV."""

    name: str
    sketch: str
    fewest: int = 4
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    first: int = 16
    parts: bool = True
    resumable: bool = True

    def passes(self, problem: Problem, samples: int) -> int:
        """For l = `samples` and k = ⌈l/2⌉."""
        return _columns(samples) * self._column(problem) + samples * len(problem.kernels) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """The l that `passes` pay for."""
        left, kernels = passes - problem.targets, len(problem.kernels)
        even = 2 * (left // (self._column(problem) + 2 * kernels))
        return even + 1 if self.passes(problem, even + 1) <= passes else even

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` samples: the remainder is run anew on the smaller complement."""
        return self.passes(problem, want) - self.passes(problem, have) + have * len(problem.kernels)

    def _column(self, problem: Problem) -> int:
        """Passes for one column of Q: a sketch by one of the kernels, which take turns, and JᵀQ, and K Q for pairs."""
        jvps = [kernel.J.passes_per_jvp for kernel in problem.kernels]
        sketch = max(jvps) + (1 if self.sketch == "KS" else 0)
        return sketch + len(jvps) + (sum(jvps) * problem.groups.count if problem.pairs else 0)

    def draw(self, problem: Problem, seed: int, start: int, stop: int) -> Probes:
        """Signs for the remainder, and for the sketch."""
        first, columns = problem.kernels[0].J, (_columns(start), _columns(stop))
        signs = draw_cotangents(first, seed, start, stop)
        if self.sketch == "KS":
            return Probes(cotangents=signs, sketch=draw_cotangents(first, seed, *columns, SKETCH))
        drawn = (draw_tangents(k.J, seed, *columns, a, TANGENT_SKETCH) for a, k in enumerate(problem.kernels))
        return Probes(cotangents=signs, tangent_sketch=tuple(drawn))

    def extend(self, problem: Problem, state: State | None, probes: Probes) -> State:
        """Add columns to Q, and run the remainder on its complement."""
        xp = problem.xp
        signs = probes.cotangents
        if state is None:
            state = self._subspace(problem, None, probes)
            state = replace(state, targets=target_moments(problem))
        else:
            signs = xp.concat([state.signs, signs], axis=0)
            if leading(probes.sketch if self.sketch == "KS" else probes.tangent_sketch):
                state = self._subspace(problem, state, probes)
        cotangents = _complement(problem, signs, state.basis)
        remainder = REVERSE.extend(_without_targets(problem), None, Probes(cotangents=cotangents))
        return replace(state, signs=signs, remainder=remainder)

    def _subspace(self, problem: Problem, old: State | None, probes: Probes) -> State:
        """Add columns to Q."""
        xp = problem.xp
        columns = self._range(problem, probes, 0 if old is None else old.basis.shape[0])
        basis = _orthonormalise(problem, None if old is None else old.basis, columns)
        if old is not None and not basis.shape[0]:
            return old
        norms, images = _project(problem, basis)
        if old is None:
            return State(basis, norms, images)
        basis = xp.concat([old.basis, basis], axis=0)
        norms = tuple(a + b for a, b in zip(old.norms, norms, strict=True))
        if images is not None and old.images is not None:
            images = tuple(
                tuple(xp.concat([a, b], axis=0) for a, b in zip(*pair, strict=True))
                for pair in zip(old.images, images, strict=True)
            )
        return replace(old, basis=basis, norms=norms, images=images)

    def _range(self, problem: Problem, probes: Probes, start: int) -> Array:
        """Columns, as rows (k, M), of KS or JV; column i is by kernel (start + i) mod the number of kernels."""
        xp, turns = problem.xp, len(problem.kernels)
        pieces = []
        for a, kernel in enumerate(problem.kernels):
            mine = slice((a - start) % turns, None, turns)
            if self.sketch == "KS":
                assert probes.sketch is not None
                bits = probes.sketch[mine, ...]
                if bits.shape[0]:
                    whole = replace(problem, groups=replace(problem.groups, names=()))
                    pieces.append(apply_kernel(whole, a, bits)[1][0])
            else:
                assert probes.tangent_sketch is not None
                blocks = tuple(block[mine, ...] for block in probes.tangent_sketch[a])
                if blocks[0].shape[0]:
                    expand = tangent_expander(kernel.J, problem.exponents[a])
                    reduce = OutputImages(xp, problem.centre)
                    pieces.append(kernel.map_jvp(reduce, blocks, expand, leading(blocks)))
        return pieces[0] if len(pieces) == 1 else xp.concat(pieces, axis=0)

    def moments(self, problem: Problem, state: State) -> dict[Key, Moment]:
        """The exact parts plus what the remainder averages."""
        rests = REVERSE.moments(_without_targets(problem), state.remainder)
        known = (state.norms[k[1]] if k[0] == "trace" else _known(problem, state, k[1], k[-1]) for k in rests)
        found = problem.on_host(_beside)(tuple(known), tuple((rest.value, rest.replicates) for rest in rests.values()))
        return {**{key: Moment(*arrays) for key, arrays in zip(rests, found, strict=True)}, **state.targets}


HUTCHPP = HutchPP("hutch++", "KS")
HUTCHPP_JV = HutchPP("hutch++jv", "JV")


def _columns(samples: int) -> int:
    """K for l samples: half as many, for a column costs more passes, and error bars need samples."""
    return -(-samples // 2)


def _project(problem: Problem, basis: Array) -> tuple[tuple[Array, ...], tuple[tuple[Array, ...], ...] | None]:
    """‖J_lᵀQ‖_F² for all kernels, and KQ where products are wanted."""
    xp, cotangents = problem.xp, _as_cotangents(problem, basis)
    if problem.pairs:
        both = [apply_kernel(problem, a, cotangents) for a in problem.indices]
        return tuple(xp.sum(norms, axis=0) for norms, _ in both), tuple(images for _, images in both)
    count = leading(basis)
    norms = []
    for a, kernel in enumerate(problem.kernels):
        ready, expand = problem.cotangents(a, cotangents)
        rows = kernel.pull(problem.parameter_norms(a), ready, expand, count)
        norms.append(xp.sum(problem.whole_and_parts(rows, 1), axis=0))
    return tuple(norms), None


def _beside(
    xp: ModuleType, offsets: tuple[Array, ...], rests: tuple[tuple[Array, Array], ...]
) -> tuple[tuple[Array, Array, Array], ...]:
    """Value, replicates and offset of moments with an exact part; array-only."""
    pairs = zip(offsets, rests, strict=True)
    return tuple((offset + value, offset[None, :] + without, offset) for offset, (value, without) in pairs)


def _known(problem: Problem, state: State, a: int, b: int) -> Array:
    """2⟨K_aQ, K_bQ⟩ - ⟨QᵀK_aQ, QᵀK_bQ⟩, (rows,)."""
    assert state.images is not None
    step = problem.compiled(_captured, problem.xp, row_gram(problem, a, "jvp"))
    known: Array = step(state.basis, state.images[a], None if a == b else state.images[b])
    return known


def _captured(
    xp: ModuleType, gram: RowGram, basis: Array, left: tuple[Array, ...], right: tuple[Array, ...] | None
) -> Array:
    """`_known` of Q and images (k, M) for the whole and each part, of one kernel or of two; array-only."""
    own = gram(left, (basis,) * len(left))
    other = own if right is None else gram(right, (basis,) * len(right))
    inner = xp.sum(xp.linalg.diagonal(gram(left, left if right is None else right)), axis=1)
    return 2.0 * inner - xp.sum(own * other, axis=(1, 2))


def _most_columns(problem: Problem) -> int:
    """The largest rank that the kernels can have together, but at least 1."""
    space = problem.size if problem.centre is None else problem.centre.rank
    return max(1, min(space, sum(problem.parameters(a) for a in problem.indices)))


def _orthonormalise(problem: Problem, old: Array | None, columns: Array) -> Array:
    """New orthonormal rows that extend `old`, from the rows of `columns`; no more in all than the space has."""
    have = 0 if old is None else old.shape[0]
    columns = columns[: min(columns.shape[0], _most_columns(problem) - have), :]
    fresh: Array = problem.compiled(_extension, problem.xp, problem.centre)(old, columns)
    return fresh


def _extension(xp: ModuleType, centre: Centre | None, old: Array | None, columns: Array) -> Array:
    """The rows that `columns` add to `old`; array-only.

    Householder QR of [Q_old, Y] returns Q_old (up to sign) and then directions orthogonal to it to
    rounding, also where Y adds nothing new. Only its derivative breaks down there, so a trace of the unit vectors is
    mixed in. Estimates are unbiased whatever Q is, and this Q captures as much.
    """
    columns = xp.astype(columns, scalar_dtype(xp, columns), copy=False)
    if not columns.shape[0]:
        return columns
    have = 0 if old is None else old.shape[0]
    index = beside(xp, np.arange(have, have + columns.shape[0]), columns, xp.int32)
    units = UnitCotangents(xp, columns.shape[1], columns.dtype, 0, centre)(index)
    columns = columns + units * (eps(xp, columns) ** (2 / 3) * xp.max(xp.abs(columns)))
    stack = columns if old is None else xp.concat([old, columns], axis=0)
    q, _ = xp.linalg.qr(stack.T)
    return q.T[have:, :]


def _complement(problem: Problem, signs: Array, basis: Array) -> Array:
    """Cotangents P H ω, (l, M)."""
    expand = cotangent_expander(problem.kernels[0].J, 0, problem.centre)
    outside: Array = problem.compiled(_outside, problem.xp, expand)(signs, basis)
    return outside


def _outside(xp: ModuleType, expand: Expand, signs: Array, basis: Array) -> Array:
    """What probes have beside a basis, in their dtype; array-only."""
    omega = expand(signs)
    wide = xp.astype(omega, basis.dtype, copy=False)
    return xp.astype(wide - (wide @ basis.T) @ basis, omega.dtype, copy=False)


def _as_cotangents(problem: Problem, rows: Array) -> Array:
    return problem.xp.astype(rows, problem.kernels[0].J.outputs.dtype, copy=False)


def _without_targets(problem: Problem) -> Problem:
    return replace(problem, needs=frozenset(key for key in problem.needs if key[0] != "target"))
