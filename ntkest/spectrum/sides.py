"""J as a map between a "left" side, whose vectors make the basis of a Krylov space, and the "right" side.

The left side is the smaller one, where bases are cheap to keep: the outputs (rows ω, pushed by VJPs) or the parameters
(rows v, pushed by JVPs). Both K = J Jᵀ and G = JᵀJ have the same eigenvalues but for zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import to_device

from ..estimators import Problem
from ..estimators.images import OutputImages
from ..linearization import (
    Array,
    Blocks,
    Linearization,
    NonFiniteError,
    TracedValueError,
    UnsupportedModeError,
    beside,
    eps,
    identity,
    leading,
    scalar_dtype,
)
from ..probes import (
    COTANGENTS,
    SKETCH,
    TANGENT_SKETCH,
    TANGENTS,
    Centre,
    cotangent_expander,
    draw_cotangents,
    draw_tangents,
    tangent_expander,
)
from ..quantities import pose

OUTPUTS, PARAMETERS = "outputs", "parameters"

ROUNDING = 16.0
"""Images are trusted to this many machine epsilons of the largest singular value."""


@dataclass(frozen=True)
class Operator:
    """J · 2**-exponent, with the means of outputs taken away if asked."""

    problem: Problem
    left: str
    """"outputs" or "parameters"."""
    compact: bool = True
    """Whether vectors on the right may be of the compact form, if outputs are on the left."""

    @staticmethod
    def of(
        J: Linearization,
        centered: bool | str = False,
        memory: int | str = "2GB",
        chunk: int | None = None,
        compact: bool = True,
    ) -> Operator:
        """With the smaller side on the left; with one AD mode, the side that can be pushed."""
        problem = pose(J, (), centered=centered, memory=memory, chunk=chunk)
        costs = {OUTPUTS: problem.size, PARAMETERS: problem.parameters(0) * J.passes_per_jvp}
        sides = [side for side, mode in ((OUTPUTS, "vjp"), (PARAMETERS, "jvp")) if mode in J.modes]
        return Operator(problem, min(sides, key=lambda side: costs[side]), compact)

    @property
    def xp(self) -> ModuleType:
        """The array namespace."""
        xp: ModuleType = self.problem.xp
        return xp

    @property
    def linearization(self) -> Linearization:
        """J itself."""
        return self.problem.kernels[0].J

    @property
    def pushed(self) -> Linearization:
        """What vectors are pushed through."""
        kernel = self.problem.kernels[0]
        return kernel.compact if self.compact and self.left == OUTPUTS else kernel.J

    @property
    def right(self) -> str:
        """The side that is not on the left."""
        return PARAMETERS if self.left == OUTPUTS else OUTPUTS

    @property
    def both(self) -> bool:
        """Whether J can go both ways."""
        return self.linearization.modes >= {"jvp", "vjp"}

    def check_both(self, what: str) -> None:
        """Refuse a model that lacks a mode."""
        if not self.both:
            raise UnsupportedModeError(
                f"{what} needs jvp and vjp, but this model has {sorted(self.linearization.modes)} only; "
                "use method='exact'"
            )

    @property
    def outputs(self) -> int:
        """M, the size of K."""
        return self.problem.size

    @property
    def rank(self) -> int:
        """The largest rank that K can have."""
        return min(self.space(OUTPUTS), self.space(PARAMETERS))

    @cached_property
    def scale(self) -> float:
        """The eigenvalues of K are those of the scaled operator times this."""
        return math.ldexp(1.0, 2 * self.problem.exponents[0])

    @cached_property
    def eps(self) -> float:
        """Machine epsilon of the passes."""
        return eps(self.xp, self.linearization.outputs, *self.linearization.params)

    def space(self, side: str) -> int:
        """The dimension of what the operator sees of a side."""
        centre = self.problem.centre
        return self.size(side) if centre is None or side == PARAMETERS else centre.rank

    def size(self, side: str) -> int:
        """M or P."""
        return sum(math.prod(p.shape) for p in self.pushed.params) if side == PARAMETERS else self.outputs

    def row_bytes(self, side: str) -> int:
        """Bytes of one vector."""
        return sum(math.prod(a.shape) * max(4, self.xp.finfo(a.dtype).bits // 8) for a in self._arrays(side))

    def push_passes(self) -> int:
        """AD passes to push one vector to the right."""
        return 1 if self.left == OUTPUTS else int(self.linearization.passes_per_jvp)

    def step_passes(self) -> int:
        """AD passes to push one vector to the right and back."""
        return 1 + int(self.linearization.passes_per_jvp)

    def push(self, rows: Blocks) -> Blocks:
        """From left to right."""
        return self._image(self.left, rows)

    def pull(self, rows: Blocks) -> Blocks:
        """From right to left."""
        return self._image(self.right, rows)

    def images_of_signs(self, seed: int, start: int, stop: int) -> Blocks:
        """Sign probes start … stop-1 on the right, pulled to the left."""
        if self.right == PARAMETERS:
            return replace(self, compact=False).pull(self.signs(self.right, seed, start, stop))
        return self.pull(self.signs(self.right, seed, start, stop))

    def compiled(self, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
        """`function` of (xp, *static, *arrays), with xp and static arguments fixed."""
        return self.problem.compiled(function, self.xp, *static)

    def signs(self, side: str, seed: int, start: int, stop: int, sketch: bool = False) -> Blocks:
        """Sign probes start … stop-1 on a side, unscaled; sketches come from a stream of their own."""
        if side == OUTPUTS:
            bits = draw_cotangents(self.linearization, seed, start, stop, SKETCH if sketch else COTANGENTS)
            rows = (self.problem.kernels[0].compile(cotangent_expander(self.linearization, 0))(bits),)
        else:
            blocks = draw_tangents(self.linearization, seed, start, stop, 0, TANGENT_SKETCH if sketch else TANGENTS)
            rows = self.problem.kernels[0].compile(tangent_expander(self.linearization, 0))(blocks)
        return tuple(self.xp.astype(a, scalar_dtype(self.xp, a), copy=False) for a in rows)

    def units(self, start: int, stop: int) -> Blocks:
        """Unit vectors start … stop-1 of the left side."""
        sizes = [math.prod(a.shape) for a in self._arrays(self.left)]
        index, rows, first = np.arange(start, stop), [], 0
        for size, like in zip(sizes, self._arrays(self.left), strict=True):
            hot = index[:, None] == np.arange(first, first + size)[None, :]
            rows.append(beside(self.xp, hot, like, scalar_dtype(self.xp, like)))
            first += size
        return tuple(rows)

    def split(self, rows: Array) -> Blocks:
        """Rows (k, n) of numbers on the left side, in its blocks."""
        blocks, start = [], 0
        for like in self._arrays(self.left):
            stop = start + math.prod(like.shape)
            blocks.append(self.xp.astype(rows[:, start:stop], scalar_dtype(self.xp, like), copy=False))
            start = stop
        return tuple(blocks)

    def centred(self, side: str, rows: Blocks) -> Blocks:
        """`rows` without what the operator ignores."""
        centre = self.problem.centre
        return rows if centre is None or side == PARAMETERS else (centre(self.xp, rows[0]),)

    def _arrays(self, side: str) -> tuple[Array, ...]:
        return tuple(self.pushed.params) if side == PARAMETERS else (self.linearization.outputs,)

    def _image(self, side: str, rows: Blocks) -> Blocks:
        """J or Jᵀ times vectors of a side, in at least float32."""
        problem, kernel, count = self.problem, self.problem.kernels[0], leading(rows)
        lift = self._lift(side)
        dtypes = tuple(a.dtype for a in self._arrays(side))
        centre = problem.centre if side == OUTPUTS else None
        ready = self.compiled(_scaled, centre, 2.0 ** (lift - problem.exponents[0]), dtypes)(rows)
        images: Blocks
        if side == OUTPUTS:
            images = kernel.map_vjp(identity, ready[0], None, count, self.pushed)
        else:
            images = (kernel.map_jvp(OutputImages(self.xp, problem.centre), ready, None, count, self.pushed),)
        wide = tuple(scalar_dtype(self.xp, a) for a in images)
        return tuple(self.compiled(_scaled, None, 2.0**-lift, wide)(images))

    def _lift(self, side: str) -> int:
        """A power of two that brings unit vectors to entries near 1, where the dtype is too narrow for small ones."""
        narrow = any(float(self.xp.finfo(a.dtype).max) < 1e6 for a in self._arrays(side))
        return int(math.log2(self.size(side)) / 2) if narrow else 0


def _scaled(xp: ModuleType, centre: Centre | None, scale: float, dtypes: tuple[Any, ...], rows: Blocks) -> Blocks:
    """Centred, scaled and cast."""
    if centre is not None:
        rows = (centre(xp, rows[0]),)
    return tuple(xp.astype(a * scale, dtype, copy=False) for a, dtype in zip(rows, dtypes, strict=True))


def host(array: Array) -> np.ndarray:
    """A small array as float64 numbers on the host, where a tridiagonal problem is solved.

    Raises
    ------
    TracedValueError, NonFiniteError
    """
    if hasattr(array, "detach"):
        array = array.detach()
    try:
        try:
            numbers = np.asarray(array)
        except (TypeError, RuntimeError, ValueError):  # on an accelerator
            numbers = np.asarray(to_device(array, "cpu"))
    except Exception as error:
        raise TracedValueError(
            "a spectrum decides from numbers how far to go, which cannot be traced; call it outside jit, grad and vmap"
        ) from error
    if not np.all(np.isfinite(numbers)):
        raise NonFiniteError("an image of a vector is NaN or infinite; use float64, or look for a derivative that is")
    return numbers.astype(np.float64)
