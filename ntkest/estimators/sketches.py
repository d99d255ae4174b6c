"""What the leave-one-out estimators share: probes, growing bases and matrices, and the step from samples to moments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..linearization import Array, Blocks, eps, is_concrete, number, numbers
from ..probes import Centre
from ..tallskinny import extend_basis, grown_triangle, least_for_unit
from ..tangents import Gram
from .leaveout import Samples
from .problem import Problem

DEPENDENT = 1e-10
"""A probe keeping less than this share of its squared length beside the others is a combination of them."""

EXHAUSTED = 100.0
"""Rounding errors, relative to the longest image, below which what an image adds to a basis is noise."""

MANY_PARAMETERS = 4
"""From this many parameters an output on, gradients of probes are left alone, ..."""

SINGLE = 32
"""... if all numbers have this many bits: rounding errors of Kω, unlike those of gradients, can make a factor fail."""

Triple = tuple[Array, Array, Array]
"""Value (1,), replicates (m, 1) and refits (m, 1) of a `Moment`."""


def dimension(problem: Problem) -> int:
    """Of the space that normal cotangents live in."""
    return problem.size if problem.centre is None else problem.centre.rank


def most_samples(problem: Problem) -> int:
    """The largest rank that any of the kernels can have, after which there is nothing left to sample."""
    return max(1, min(dimension(problem), max(problem.parameters(a) for a in problem.indices)))


def fitting_samples(problem: Problem, outputs: int, parameters: int) -> int:
    """Samples that ``memory=`` has room for, if each keeps so many vectors of outputs and of parameters a kernel."""

    def size(array: Array) -> int:
        return int(math.prod(array.shape)) * max(4, int(problem.xp.finfo(array.dtype).bits) // 8)

    each = sum(outputs * size(k.J.outputs) + parameters * sum(map(size, k.compact.params)) for k in problem.kernels)
    return int(problem.memory // max(1, each))


@dataclass(frozen=True)
class LeaveOneOut(ABC):
    """How many samples there can be, and what they cost: the same for all sketches."""

    fewest: int = 4
    modes: frozenset[str] = frozenset({"vjp", "jvp"})
    first: int = 8
    parts: bool = False
    resumable: bool = True

    @abstractmethod
    def split(self, problem: Problem) -> tuple[int, int]:
        """VJPs and JVPs of a sample, for each kernel."""

    def each(self, problem: Problem) -> int:
        """Passes of a sample."""
        vjps, jvps = self.split(problem)
        return sum(vjps + jvps * kernel.J.passes_per_jvp for kernel in problem.kernels)

    @abstractmethod
    def kept(self, problem: Problem) -> tuple[int, int]:
        """Vectors of outputs and of parameters that a sample keeps for each kernel."""

    def passes(self, problem: Problem, samples: int) -> int:
        """Of so many samples from scratch, or of as many as there can be."""
        return min(samples, most_samples(problem)) * self.each(problem) + problem.targets

    def samples(self, problem: Problem, passes: int) -> int:
        """The number of samples that `passes` pay for; no more than the kernels can have rank, or memory holds."""
        most = min(most_samples(problem), fitting_samples(problem, *self.kept(problem)))
        return min((passes - problem.targets) // self.each(problem), most)

    def growth(self, problem: Problem, have: int, want: int) -> int:
        """Passes from `have` to `want` samples."""
        return self.passes(problem, want) - self.passes(problem, have)


def add_probes(problem: Problem, old: Array | None, new: Array) -> tuple[Array, Array, Array]:
    """All probes (m, M) after new ones (k, M), centred if asked; the new ones among them; the Gram matrix of all.

    A probe that is a combination of others has nothing left to measure with. Such ones are left out, where values can
    be looked at; under tracing they are the caller's business.
    """
    xp = problem.xp
    probes, new, overlaps, squares = problem.compiled(_together, xp, problem.centre)(old, new)
    least = problem.on_host(least_for_unit)(overlaps, squares)
    if not is_concrete(least) or number(least) > DEPENDENT + 100.0 * eps(xp, overlaps):
        return probes, new, overlaps
    kept = _independent(overlaps)
    if len(kept) == probes.shape[0]:
        return probes, new, overlaps
    probes = xp.stack([probes[i, ...] for i in kept], axis=0)
    have = 0 if old is None else old.shape[0]
    return probes, probes[have:, :], grow_products(xp, True, None, (probes,), (probes,))


def _together(
    xp: ModuleType, centre: Centre | None, old: Array | None, new: Array
) -> tuple[Array, Array, Array, Array]:
    """All probes, the new ones, their Gram matrix, and its diagonal; array-only."""
    new = new if centre is None else centre(xp, new)
    probes = new if old is None else xp.concat([old, new], axis=0)
    overlaps = grow_products(xp, True, None, (probes,), (probes,))
    return probes, new, overlaps, xp.linalg.diagonal(overlaps)


def _independent(overlaps: Array) -> list[int]:
    """Indices of the probes that are not, to rounding, combinations of those before."""
    rest = numbers(overlaps)
    sizes = np.diagonal(rest).copy()
    kept = []
    for i in range(rest.shape[0]):
        if rest[i, i] > DEPENDENT * sizes[i]:
            kept.append(i)
            rest = rest - np.outer(rest[:, i], rest[i]) / rest[i, i]
    return kept


def keeps_gradients(problem: Problem) -> bool:
    """Whether gradients of probes serve better than Kω: they are not much longer than that, or keep more digits."""
    short = any(problem.parameters(a) < MANY_PARAMETERS * problem.size for a in problem.indices)
    arrays = [array for kernel in problem.kernels for array in (kernel.J.outputs, *kernel.J.params)]
    return short or any(int(problem.xp.finfo(array.dtype).bits) < SINGLE for array in arrays)


def grow_basis(problem: Problem, basis: Blocks | None, r: Array | None, blocks: Blocks) -> tuple[Blocks, Array]:
    """New orthonormal vectors for the images in `blocks`, and R of all images."""
    fresh, beside_old, corner = extend_basis(problem.xp, basis, blocks, problem.compiled)
    return fresh, corner if r is None else grown_triangle(problem.xp, r, beside_old, corner)


def grow_products(
    xp: ModuleType, symmetric: bool, old: tuple[Blocks, Blocks, Array] | None, left: Blocks, right: Blocks
) -> Array:
    """Inner products (m, m) of all rows, from those of the old and the new rows on both sides.

    `symmetric` says that left and right are the same.
    """
    gram = Gram(xp, (0,) * len(left), 1)
    corner = gram(left, left if symmetric else right)[0, ...]
    if old is None:
        return corner
    above = gram(old[0], right)[0, ...]
    below = above.T if symmetric else gram(left, old[1])[0, ...]
    return xp.concat([xp.concat([old[2], above], axis=1), xp.concat([below, corner], axis=1)], axis=0)


def summarise(xp: ModuleType, samples: Samples) -> Triple:
    """The mean, the means without each sample, and the estimates without each probe."""
    single, double = samples
    m = single.shape[0]
    total = xp.sum(single)
    refits = (xp.sum(double, axis=0) - xp.linalg.diagonal(double)) / (m - 1)
    return (total / m)[None], ((total - single) / (m - 1))[:, None], refits[:, None]


def ritz_values(r: Array, square: Array) -> np.ndarray | None:
    """Eigenvalues of `square` (m, m), descending, on the host; None where R (m, m) shows a rank of less than m.

    For decisions: whether to go on, and with what.
    """
    size, matrix = np.abs(np.diagonal(numbers(r))), numbers(square)
    finest = float(np.finfo(np.float32 if "32" in str(r.dtype) else np.float64).eps)
    if size.min() <= EXHAUSTED * finest * size.max():
        return None
    values: np.ndarray = np.sort(np.linalg.eigvalsh((matrix + matrix.T) / 2))[::-1]
    np.maximum(values, finest * values[0], out=values)
    return values
