"""Gradients of single examples: VJPs of the function of one example, vectorised over examples.

Only what depends on an example is computed for each: weights are not repeated. Where a parameter's gradient ends in
a product of two matrices, as it does for a dense layer, the two are handed out in place of the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from ntkest.linearization import Expand, Reduce

from .cache import by_value
from .derivatives import Closure, Derivative, Parts, derivative, evaluate, is_traced
from .passes import BUDGET, UNROLLED, concatenated, count_of, rows_of, scanned, unrolled

NUMBERS = 2**22
"""Numbers on the way of a chunk of pairs on CPU; 2**20 and 2**24 are alike, within a third."""

WITH_CONVOLUTION = 4
"""Pairs in a chunk on CPU where there is a convolution: 1 costs twice as much, 25 four times."""


@dataclass(frozen=True)
class Factors:
    """Where the two factors (S, p) and (S, q) of one parameter's gradient are found among the results of a jaxpr."""

    sides: tuple[int, int]
    contracted: tuple[tuple[int, ...], tuple[int, ...]]

    def of(self, results: Sequence[Any]) -> tuple[Any, Any]:
        """The factors, from the results for one example and probe."""
        left, right = (_as_factor(results[i], axes) for i, axes in zip(self.sides, self.contracted, strict=True))
        return left, right


def _as_factor(array: Any, axes: tuple[int, ...]) -> Any:
    rest = [axis for axis in range(array.ndim) if axis not in axes]
    length = math.prod(array.shape[axis] for axis in axes)
    return jnp.transpose(array, (*axes, *rest)).reshape(length, -1)


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

    @property
    def count(self) -> int:
        """The number of examples."""
        return self.shape[self.axis]

    @property
    def numbers(self) -> int:
        """The size of a gradient as it is made here, in factors or not."""
        return sum(math.prod(v.aval.shape) for v in self.plan()[0].outvars)

    def default(self, platform: str) -> int:
        """Pairs of a probe and an example to push through together, by the numbers on their way.

        On CPU few with a convolution, whose vectorised gradient is a grouped convolution.
        """
        if one_by_one(self, platform):
            return WITH_CONVOLUTION
        size = sum(math.prod(v.aval.shape) for e in self.plan()[0].eqns for v in e.outvars)
        return max(1, (NUMBERS if platform == "cpu" else BUDGET) // max(1, size))

    def varying(self) -> tuple[bool, ...]:
        """For each residual, whether it depends on the example."""
        jaxpr = self.derivative.forward
        known = _reached(jaxpr, jaxpr.invars[len(self.params) :])
        return tuple(not isinstance(a, core.Literal) and a in known for a in jaxpr.outvars[1:])

    def plan(self) -> tuple[Any, tuple[int | Factors, ...]]:
        """The linear jaxpr with factors for results where that pays, and for each parameter where to find its own."""
        jaxpr = self.derivative.linear
        made = {v: e for e in jaxpr.eqns for v in e.outvars}
        results: list[Any] = []
        places: list[int | Factors] = []
        for out in jaxpr.outvars:
            product = _product(made, out)
            if product is None:
                places.append(len(results))
                results.append(out)
            else:
                operands, contracted = product
                places.append(Factors((len(results), len(results) + 1), contracted))
                results.extend(operands)
        return jaxpr.replace(eqns=_needed(jaxpr.eqns, results), outvars=results), tuple(places)

    def pulled(self, consts: Any, residuals: Any, cotangents: Any, shared: bool = False) -> tuple[Any, ...]:
        """Cotangents (n, c, …) of n examples to blocks (n, c, P_l) or pairs (n, c, S, …).

        With `shared`, factors that do not depend on the cotangent have 1 in place of c.
        """
        jaxpr, places = self.plan()

        def one(residuals: Any, cotangent: Any) -> tuple[Any, ...]:
            results = evaluate(jaxpr, consts, [*residuals, cotangent])
            return tuple(p.of(results) if isinstance(p, Factors) else results[p].reshape(-1) for p in places)

        axes = tuple(0 if varies else None for varies in self.varying())
        out: Any = 0
        if shared:
            moved = _reached(jaxpr, jaxpr.invars[-1:])
            out = tuple(
                tuple(0 if jaxpr.outvars[side] in moved else None for side in p.sides) if isinstance(p, Factors) else 0
                for p in places
            )
        blocks: tuple[Any, ...] = jax.vmap(jax.vmap(one, (None, 0), out), (axes, 0))(residuals, cotangents)
        if not shared:
            return blocks
        return tuple(
            tuple(a if axis == 0 else a[:, None, ...] for a, axis in zip(block, axes, strict=True))
            if isinstance(block, tuple)
            else block
            for block, axes in zip(blocks, out, strict=True)
        )

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


def _reached(jaxpr: Any, sources: Sequence[Any]) -> set[Any]:
    """All variables that depend on `sources`."""
    known = set(sources)
    for eqn in jaxpr.eqns:
        if any(not isinstance(a, core.Literal) and a in known for a in eqn.invars):
            known.update(eqn.outvars)
    return known


def _needed(eqns: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """The equations that `results` depend on."""
    wanted = {v for v in results if not isinstance(v, core.Literal)}
    kept = []
    for eqn in reversed(eqns):
        if wanted.intersection(eqn.outvars):
            kept.append(eqn)
            wanted.update(a for a in eqn.invars if not isinstance(a, core.Literal))
    return kept[::-1]


def one_by_one(step: Single, platform: str) -> bool:
    """Whether to call one compiled pass again and again; see `passes.stepwise`."""
    return platform == "cpu" and "conv_general_dilated" in step.derivative.primitives


def _product(made: dict[Any, Any], out: Any) -> tuple[Any, tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Operands and contracted axes of the matrix product that `out` is, in the order of its axes; None if it is none.

    Nor where a product takes less room than its factors.
    """
    eqn, turned = made.get(out), tuple(range(len(out.aval.shape)))
    while eqn is not None and eqn.primitive.name == "transpose":
        turned = tuple(eqn.params["permutation"][i] for i in turned)
        eqn = made.get(eqn.invars[0])
    if eqn is None or eqn.primitive.name != "dot_general":
        return None
    (left_axes, right_axes), batch = eqn.params["dimension_numbers"]
    left, right = eqn.invars
    if batch != ((), ()) or len({a.aval.dtype for a in (left, right, out)}) > 1:
        return None
    free = [len(a.aval.shape) - len(axes) for a, axes in ((left, left_axes), (right, right_axes))]
    length = math.prod(left.aval.shape[axis] for axis in left_axes)
    p, q = (math.prod(a.aval.shape) // length for a in (left, right))
    if length * (p + q) >= p * q:
        return None
    if turned == tuple(range(sum(free))):
        return (left, right), (tuple(left_axes), tuple(right_axes))
    if turned == (*range(free[0], sum(free)), *range(free[0])):
        return (right, left), (tuple(right_axes), tuple(left_axes))
    return None


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
            found = reduce(jax.tree.map(lambda a: a.reshape(size * count, *a.shape[2:]), images))
            return jax.tree.map(lambda a: jnp.swapaxes(a.reshape(size, count, *a.shape[1:]), 0, 1), found)

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
        images = step.pulled(consts[1], residuals, step.own(cotangents, start, size), shared=True)
        return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), images)

    arguments = (step.consts, blocks, step.inputs, cotangents, start)
    if is_traced(*blocks, *step.inputs, *step.consts[0], *step.consts[1], cotangents):
        return whole(*arguments, size)
    key = ("uses", step.shape, step.axis, len(step.params))
    compiled = step.derivative.compiled.get(key, lambda: jax.jit(whole, static_argnames="size"))
    return compiled(*arguments, size=size)
