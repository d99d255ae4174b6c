"""Gradients of single examples: VJPs of the function of one example, vectorised over examples.

Only what depends on an example is computed for each: weights are not repeated. Where a parameter's gradient is a sum of
products of matrices, as it is for a dense layer, their factors are handed out in place of the product (`factors`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from ntkest.linearization import Expand, Reduce

from .cache import by_value
from .derivatives import Closure, Derivative, Parts, derivative, evaluate, is_traced
from .factors import Plan, planned, reached
from .passes import BUDGET, UNROLLED, concatenated, count_of, rows_of, scanned, unrolled

NUMBERS = 2**22
"""Numbers on the way of a chunk of pairs on CPU; 2**20 and 2**24 are alike, within a third."""

WITH_CONVOLUTION = 4
"""Pairs in a chunk on CPU where there is a convolution: 1 costs twice as much, 25 four times."""


@dataclass(frozen=True, eq=False)
class Single:
    """The VJP of a function of one example.

    Attributes
    ----------
    derivative, consts
        `forward(consts, *blocks, *own)` and `linear(consts, *residuals, cotangent)`, where `own` are the inputs of one
        example.
    inputs : tuple of arrays
        Those of all examples, which run along axis 0.
    shape : tuple of int
        Of the outputs of all examples; `axis` is that of the examples.
    params : tuple of int
        P_l of each block.
    """

    derivative: Derivative
    consts: Parts
    inputs: tuple[Any, ...]
    shape: tuple[int, ...]
    axis: int
    params: tuple[int, ...]
    plans: dict[bool, Plan] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of examples."""
        return self.shape[self.axis]

    @property
    def numbers(self) -> int:
        """The size of a gradient as it is made here, in factors or not."""
        return self.plan().numbers

    def default(self, platform: str) -> int:
        """Pairs of a probe and an example to push through together, by the numbers on their way.

        On CPU few with a convolution, whose vectorised gradient is a grouped convolution.
        """
        if one_by_one(self, platform):
            return WITH_CONVOLUTION
        size = sum(math.prod(v.aval.shape) for e in self.plan().jaxpr.eqns for v in e.outvars)
        return max(1, (NUMBERS if platform == "cpu" else BUDGET) // max(1, size))

    def varying(self) -> tuple[bool, ...]:
        """For each residual, whether it depends on the example."""
        jaxpr = self.derivative.forward
        known = reached(jaxpr, jaxpr.invars[len(self.params) :])
        return tuple(not isinstance(a, core.Literal) and a in known for a in jaxpr.outvars[1:])

    def plan(self, uses: bool = False) -> Plan:
        """Which gradients come in factors, as `Uses` or as `ExampleGradients` wants them."""
        if uses not in self.plans:
            self.plans[uses] = planned(self.derivative.linear, uses)
        return self.plans[uses]

    def pulled(self, consts: Any, residuals: Any, cotangents: Any, uses: bool = False) -> tuple[Any, ...]:
        """Cotangents (n, c, …) of n examples to the results of `plan`, (c, n, …).

        Of uses, those that do not depend on the cotangent have 1 in place of c.
        """
        plan = self.plan(uses)

        def one(residuals: Any, cotangent: Any) -> tuple[Any, ...]:
            return tuple(evaluate(plan.jaxpr, (), [*consts, *residuals, cotangent]))

        axes = tuple(0 if varies else None for varies in self.varying())
        out = tuple(0 if moved or not uses else None for moved in plan.moved)
        results = jax.vmap(jax.vmap(one, (axes, 0)), (None, 1), out)(residuals, cotangents)
        return tuple(a if axis == 0 else a[None] for a, axis in zip(results, out, strict=True))

    def residuals(self, consts: Any, blocks: Any, inputs: Any, start: Any, size: int) -> Any:
        """What the VJPs of examples start … start + size - 1 need of their forward."""
        own = rows_of(inputs, start, size)
        axes = tuple(0 if varies else None for varies in self.varying())
        forward = jax.vmap(lambda own: tuple(evaluate(self.derivative.forward, consts, [*blocks, *own])[1:]), 0, axes)
        return forward(own)

    def own(self, omega: Any, start: Any, size: int) -> Any:
        """Cotangents (c, M) to those of the examples, (size, c, …)."""
        count = omega.shape[0]
        omega = jnp.moveaxis(omega.reshape(count, *self.shape), self.axis + 1, 0)
        omega = lax.dynamic_slice_in_dim(omega, start, size)
        return omega.reshape(size, count, *self.shape[: self.axis], 1, *self.shape[self.axis + 1 :])


def one_by_one(step: Single, platform: str) -> bool:
    """Whether to call one compiled pass again and again; see `passes.stepwise`."""
    return platform == "cpu" and "conv_general_dilated" in step.derivative.primitives


def single(primal: Closure, blocks: Sequence[Any], inputs: Sequence[Any], shape: tuple[int, ...], axis: int) -> Single:
    """`primal` maps blocks and the inputs of one example to its outputs; `inputs` are those of all, along axis 0.

    Raises
    ------
    UnsupportedModeError
    """
    count = len(blocks)

    def transform(function: Callable[..., Any], *arrays: Any) -> Any:
        return jax.vjp(lambda *b: function(*b, *arrays[count:]), *arrays[:count])

    own = [jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in inputs]  # type: ignore[no-untyped-call]
    found, consts = derivative(transform, primal, [*blocks, *own], lambda outputs: (outputs,))
    return Single(found, consts, tuple(inputs), shape, axis, tuple(math.prod(b.shape) for b in blocks))


def run_examples(
    step: Single, blocks: Any, reduce: Reduce, probes: Any, expand: Expand | None, sizes: tuple[int, int], platform: str
) -> Any:
    """``map_example_vjp``, for at most `sizes` examples and probes together."""
    together, chunk = sizes
    apart = one_by_one(step, platform)

    def part(consts: Parts, blocks: Any, inputs: Any, probes: Any, start: Any, size: int) -> Any:
        """Examples start … start + size - 1, all probes: (k, size, …)."""
        residuals = step.residuals(consts[0], blocks, inputs, start, size)

        def body(part: Any) -> Any:
            omega = part if expand is None else expand(part)
            count = omega.shape[0]
            images = step.pulled(consts[1], residuals, step.own(omega, start, size))
            rows = step.plan().blocks([a.reshape(count * size, *a.shape[2:]) for a in images])
            return jax.tree.map(lambda a: a.reshape(count, size, *a.shape[1:]), reduce(rows))

        return (unrolled if apart else scanned)(body, probes, chunk)

    def whole(consts: Parts, blocks: Any, inputs: Any, probes: Any) -> Any:
        full = step.count // together
        results = []
        if full == 1 or apart:
            results += [part(consts, blocks, inputs, probes, i * together, together) for i in range(full)]
        else:
            stacked = lax.map(lambda i: part(consts, blocks, inputs, probes, i * together, together), jnp.arange(full))
            results.append(jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1, *a.shape[3:]), stacked))
        if full * together < step.count:
            results.append(part(consts, blocks, inputs, probes, full * together, step.count - full * together))
        return concatenated(*results, axis=1)

    arguments = (step.consts, blocks, step.inputs)
    if is_traced(*blocks, *step.inputs, *step.consts[0], *step.consts[1], *jax.tree.leaves(probes)):
        return whole(*arguments, probes)
    compiled = step.derivative.compiled
    key = ("examples", by_value(reduce), by_value(expand), step.shape, step.axis, len(step.params), sizes)
    if not apart:
        return compiled.get(key, lambda: jax.jit(whole))(*arguments, probes)
    few = compiled.get(key, lambda: jax.jit(part, static_argnames="size"))
    results = []
    for start in range(0, step.count, together):
        size, stride = min(together, step.count - start), chunk * UNROLLED["vjp"]
        parts = (rows_of(probes, i, min(stride, count_of(probes) - i)) for i in range(0, count_of(probes), stride))
        results.append(concatenated(*[few(*arguments, p, start, size=size) for p in parts]))
    return concatenated(*results, axis=1)


def run_uses(step: Single, blocks: Any, cotangents: Any, start: int, size: int) -> Any:
    """``uses`` of examples start … start + size - 1."""

    def whole(consts: Parts, blocks: Any, inputs: Any, cotangents: Any, start: Any, size: int) -> Any:
        residuals = step.residuals(consts[0], blocks, inputs, start, size)
        return step.pulled(consts[1], residuals, step.own(cotangents, start, size), uses=True)

    arguments = (step.consts, blocks, step.inputs, cotangents, start)
    if is_traced(*blocks, *step.inputs, *step.consts[0], *step.consts[1], cotangents):
        return step.plan(uses=True).blocks(whole(*arguments, size))
    key = ("uses", step.shape, step.axis, len(step.params))
    compiled = step.derivative.compiled.get(key, lambda: jax.jit(whole, static_argnames="size"))
    return step.plan(uses=True).blocks(compiled(*arguments, size=size))
