"""The same kernel with fewer parameters: coordinates of what a weight adds to the outputs of its layer.

Where a gradient is a product Aᵀ B of a factor A (S, w) that no cotangent changes and one that it does, B (S, v), and
A = RᵀQᵀ with orthonormal columns Q (w, S), it is Q R B, and has the inner products of R B (S, v). A pass that ends
in R B is one of a function with S·v parameters in place of w·v; and its transpose is the forward pass of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .derivatives import Parts, evaluate, is_traced, joined, shaped, trace
from .factors import Plan, planned
from .passes import Pass, residuals_of, stepwise


@dataclass(frozen=True)
class Coordinates:
    """Where gradients are, and which come as coordinates: for each block None, or the places of A and of B."""

    plan: Plan
    chosen: tuple[tuple[int, int] | None, ...]

    @property
    def common(self) -> tuple[int, ...]:
        """The places of all A, each once."""
        return tuple(dict.fromkeys(pair[0] for pair in self.chosen if pair is not None))

    def image(self, given: Sequence[Any], triangles: Sequence[Any], omega: Any) -> list[Any]:
        """Blocks of the image of one cotangent, given what it needs and all R."""
        results = evaluate(self.plan.jaxpr, (), [*given, omega])
        r = dict(zip(self.common, triangles, strict=True))
        whole = self.plan.blocks(results)
        return [
            _multiplied(block) if pair is None else r[pair[0]] @ results[pair[1]]
            for block, pair in zip(whole, self.chosen, strict=True)
        ]

    def sizes(self) -> list[tuple[int, ...]]:
        """The shape of each block of coordinates, () of one that is as it was."""
        shapes = [v.aval.shape for v in self.plan.jaxpr.outvars]
        return [() if p is None else (min(shapes[p[0]]), shapes[p[1]][1]) for p in self.chosen]


def coordinates(step: Pass, platform: str) -> Coordinates | None:
    """None where they would save less than half of the numbers, or where single passes are compiled for themselves."""
    if stepwise(step, platform):
        return None
    plan = planned(step.derivative.linear, False)
    moved, places = plan.moved, plan.places
    pairs = [None if isinstance(p, int) else p if moved[p[1]] else (p[1], p[0]) for p in places]
    found = Coordinates(plan, tuple(None if p is None or moved[p[0]] or not moved[p[1]] else p for p in pairs))
    old = [math.prod(image.shape) for image in step.image]
    new = [math.prod(size) if size else count for size, count in zip(found.sizes(), old, strict=True)]
    return found if 2 * sum(new) <= sum(old) else None


Modes = tuple[tuple[Any, ...], dict[str, Pass], dict[str, Parts]]
"""Parameters, passes and constants, as a linearization has them."""


def compacted(passes: dict[str, Pass], consts: dict[str, Parts], params: Sequence[Any], platform: str) -> Modes | None:
    """The same function in coordinates; None where they would not pay, or while tracing."""
    if "vjp" not in passes or is_traced(*params, *(a for parts in consts["vjp"] for a in parts)):
        return None
    step, own = passes["vjp"], consts["vjp"]
    found = coordinates(step, platform)
    if found is None:
        return None
    triangles = _triangles(step, found, own, params)
    if not all(bool(jnp.all(jnp.isfinite(r))) for r in triangles):
        return None
    try:
        return _made(passes, found, own, params, triangles)
    except (TypeError, ValueError, NotImplementedError):  # as jax refuses what it cannot transpose
        return None


def _triangles(step: Pass, found: Coordinates, consts: Parts, params: Sequence[Any]) -> tuple[Any, ...]:
    """R of all A, computed."""

    def run(consts: Parts, params: Any) -> tuple[Any, ...]:
        (probe,) = step.probe
        given = [*consts[1], *residuals_of(step)(consts[0], params)]
        results = evaluate(found.plan.jaxpr, (), [*given, jnp.zeros(probe.shape, probe.dtype)])
        return tuple(_triangle(results[place]) for place in found.common)

    compiled = step.derivative.compiled.get("triangles", lambda: jax.jit(run))
    return compiled(consts, tuple(params))  # type: ignore[no-any-return]


def _triangle(inputs: Any) -> Any:
    wide = inputs if inputs.dtype == jnp.float64 else inputs.astype(jnp.float32)
    return jnp.linalg.qr(wide.T, mode="r").astype(inputs.dtype)


def _made(
    old: dict[str, Pass], found: Coordinates, consts: Parts, params: Sequence[Any], triangles: Sequence[Any]
) -> Modes:
    step = old["vjp"]
    zeros = tuple(jnp.zeros(s, p.dtype) if s else p for s, p in zip(found.sizes(), params, strict=True))
    (probe,) = step.probe

    def forward(*blocks: Any) -> Any:
        given = [b if pair is None else p for b, pair, p in zip(blocks, found.chosen, params, strict=True)]
        return evaluate(step.derivative.forward, consts[0], given)

    first, results = trace(forward, *zeros)
    count = len(results) - 1

    def pull(*flat: Any) -> list[Any]:
        blocks = found.image([*consts[1], *flat[:count]], triangles, flat[count])
        return [block.reshape(z.shape) for block, z in zip(blocks, zeros, strict=True)]

    def push(*flat: Any) -> Any:
        transpose = jax.vjp(lambda omega: pull(*flat[:count], omega), jnp.zeros(probe.shape, probe.dtype))[1]
        return transpose(list(flat[count:]))

    like = [shaped(r) for r in results[1:]]
    image = tuple(shaped(z) for z in zeros)
    passes, parts = {}, {}
    for mode, function, probes, images in (("vjp", pull, (probe,), image), ("jvp", push, image, (probe,))):
        if mode not in old:
            continue
        second, _ = trace(function, *like, *probes)
        derivative, parts[mode] = joined(first, second, old[mode].derivative.passes)
        passes[mode] = Pass(mode, derivative, probes, images)
    return zeros, passes, parts


def _multiplied(block: Any) -> Any:
    """A gradient, from factors if it is in those."""
    return block[0].T @ block[1] if isinstance(block, tuple) else block
