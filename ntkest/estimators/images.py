"""Images of probes: reduced to norms inside the adapter's loop, or kept for their inner products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from ..linearization import Array, Blocks, identity, leading
from ..probes import Centre, Probes, tangent_expander
from ..tangents import Gram, SquareNorms
from .problem import Problem


@dataclass(frozen=True)
class OutputImages:
    """Keeps images Jv (c, M), centred if asked."""

    xp: ModuleType
    centre: Centre | None

    def __call__(self, images: Array) -> Array:
        """A chunk of images."""
        return images if self.centre is None else self.centre(self.xp, images)


def whole_first(problem: Problem, parts: list[Array]) -> tuple[Array, ...]:
    """Output-side images of the whole and then of each part: J v is the sum of the J_l v_l."""
    if not problem.groups.names:
        return tuple(parts)
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return (whole, *parts)


@dataclass(frozen=True)
class OutputNorms:
    """Squared norms (c, 1) of images Jv, centred if asked."""

    xp: ModuleType
    centre: Centre | None

    def __call__(self, images: Array) -> Array:
        """A chunk of images."""
        return SquareNorms(self.xp, (0,), 1)(OutputImages(self.xp, self.centre)(images))


def push_norms(problem: Problem, a: int, mode: str, probes: Probes) -> Array:
    """(m, rows): squared norms of the images of all probes, reduced inside the adapter's loop."""
    kernel, xp = problem.kernels[a], problem.xp
    if mode == "vjp":
        cotangents, expand = problem.cotangents(a, probes.cotangents)
        norms = kernel.pull(problem.parameter_norms(a), cotangents, expand, leading(cotangents))
        return problem.whole_and_parts(norms, 1)
    reduce = OutputNorms(xp, problem.centre)
    return problem.whole_and_parts(xp.concat(_push_parts(problem, a, probes, reduce), axis=1), 1)


def push_images(problem: Problem, a: int, mode: str, probes: Probes) -> tuple[Array, ...]:
    """Reverse: blocks, of the compact form. Forward: (m, M) for the whole and then for each part."""
    kernel = problem.kernels[a]
    if mode == "vjp":
        cotangents, expand = problem.cotangents(a, probes.cotangents)
        return tuple(kernel.pull(identity, cotangents, expand, leading(cotangents)))
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
    """Inner products of images as `push_images` returns them, (rows, a, b): the whole, then the parts."""

    gram: Gram
    total: bool
    """Whether the whole is the sum over parts, as for parameter-side images."""
    output_side: bool

    def __call__(self, left: Blocks, right: Blocks) -> Array:
        """Inner products of two batches of images."""
        xp = self.gram.xp
        parts = self.gram(left, right)
        return xp.concat([xp.sum(parts, axis=0, keepdims=True), parts], axis=0) if self.total else parts


def row_gram(problem: Problem, a: int, mode: str) -> RowGram:
    """Gram matrices of kernel a's images in a mode."""
    if mode == "vjp":
        return RowGram(problem.parameter_gram(a), bool(problem.groups.names), False)
    return RowGram(Gram(problem.xp, tuple(range(problem.rows)), problem.rows), False, True)


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
    kept = [kernel.compact.params if mode == "vjp" else (kernel.J.outputs,) for kernel in problem.kernels]
    return [sum(math.prod(array.shape) * int(xp.finfo(array.dtype).bits) // 8 for array in side) for side in kept]
