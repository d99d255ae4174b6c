"""Linear jaxprs in which gradients of weights end in products of matrices, wherever they came from.

Calls are opened; the products that a scan adds up step by step are taken at once, after it; and the gradient of a
convolution's kernel, which XLA would compute as a convolution, is a product of the patches of its input with the
cotangents of its outputs. The function stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from .derivatives import applied
from .paths import Term, makers, terms

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat2": "jaxpr",
         "checkpoint": "jaxpr", "remat": "jaxpr"}  # fmt: skip
"""Calls that are opened, and where they hold the jaxpr. Those with custom rules are left alone."""

STACKED = 4
"""Room that operands stacked over the steps of a scan may take, in units of the gradient that they make."""

Rule = Callable[[Any, list[Any]], list[Any] | None]
"""Results of an equation of certain inputs; None to take it as it is."""


def rewritten(jaxpr: Any) -> Any:
    """The same function of constants and arguments, all of them arguments now."""
    flat = retraced(jaxpr, _exposed)
    made = makers(flat)
    kernels = {
        id(term.eqn)
        for out in flat.outvars
        for term in terms(made, out)
        if term.eqn is not None and term.eqn.primitive.name == "conv_general_dilated"
    }
    return retraced(flat, lambda eqn, inputs: _patched(eqn, inputs) if id(eqn) in kernels else None)


def retraced(jaxpr: Any, rule: Rule, outputs: Callable[[Callable[[Any], Any]], Any] | None = None) -> Any:
    """The jaxpr with some equations done by a rule, without those that no result needs.

    `outputs`, from a function that reads variables, gives other results than the jaxpr's own.
    """

    def run(*args: Any) -> Any:
        read = interpreted(jaxpr, args, rule)
        return [read(a) for a in jaxpr.outvars] if outputs is None else outputs(read)

    closed = jax.make_jaxpr(run)(*[v.aval for v in (*jaxpr.constvars, *jaxpr.invars)])
    found = closed.jaxpr
    assert not closed.consts, "constants are arguments, and rules make none"
    return found.replace(eqns=needed(found.eqns, found.outvars))


def interpreted(jaxpr: Any, args: Sequence[Any], rule: Rule) -> Callable[[Any], Any]:
    """Evaluate, and give a function that reads any of the variables."""
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(a) for a in eqn.invars]
        results = rule(eqn, inputs)
        env.update(zip(eqn.outvars, applied(jaxpr, eqn, inputs) if results is None else results, strict=True))
    return read


def needed(eqns: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """The equations that `results` depend on."""
    wanted = {v for v in results if not isinstance(v, core.Literal)}
    kept = []
    for eqn in reversed(eqns):
        if wanted.intersection(eqn.outvars):
            kept.append(eqn)
            wanted.update(a for a in eqn.invars if not isinstance(a, core.Literal))
    return kept[::-1]


def _exposed(eqn: Any, inputs: list[Any]) -> list[Any] | None:
    return _opened(eqn, inputs) or _scanned(eqn, inputs)


def _opened(eqn: Any, inputs: list[Any]) -> list[Any] | None:
    """A call as what it calls; the barriers of `jax.checkpoint` go, so that XLA may keep what it would recompute."""
    inner = eqn.params.get(CALLS.get(eqn.primitive.name, ""))
    jaxpr = inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner
    if jaxpr is None or jaxpr.constvars:  # constants stay where they are
        return None
    read = interpreted(jaxpr, inputs, _exposed)
    return [read(a) for a in jaxpr.outvars]


def _scanned(eqn: Any, inputs: list[Any]) -> list[Any] | None:
    """A scan that stacks the operands of products which it would add up, and these products over all steps."""
    if eqn.primitive.name != "scan" or eqn.params["jaxpr"].consts:
        return None
    params = eqn.params
    consts, carried, length = params["num_consts"], params["num_carry"], params["length"]
    jaxpr = retraced(params["jaxpr"].jaxpr, _exposed)
    sums = {i: s for i in range(carried) if (s := _accumulated(jaxpr, i, consts + i, length)) is not None}
    if not sums:
        return None
    kept = [i for i in range(carried) if i not in sums]
    stacks = dict(zip(jaxpr.invars[consts + carried :], inputs[consts + carried :], strict=True))
    loose = [a for found in sums.values() for term in found for a in term.eqn.invars if a not in stacks]
    operands = list(dict.fromkeys(loose))
    slots = [consts + i for i in kept]

    def body(carry: Any, x: Any) -> Any:
        given: list[Any] = [*inputs[: consts + carried], *x]  # sums start from anything: nothing reads them here
        for slot, value in zip(slots, carry, strict=True):
            given[slot] = value
        read = interpreted(jaxpr.replace(eqns=inside), given, lambda eqn, inputs: None)
        outs = [read(a) for a in jaxpr.outvars[carried:]]
        return [read(jaxpr.outvars[i]) for i in kept], (outs, [read(a) for a in operands])

    inside = needed(jaxpr.eqns, [*(jaxpr.outvars[i] for i in kept), *jaxpr.outvars[carried:], *operands])
    last, (outs, stacked) = lax.scan(
        body,
        [inputs[slot] for slot in slots],
        inputs[consts + carried :],
        length=length,
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    stacks.update(zip(operands, stacked, strict=True))
    results = dict(zip(kept, last, strict=True))
    for i, found in sums.items():
        total = inputs[consts + i]
        for term in found:
            total = total + _over_steps(jaxpr, term, [stacks[a] for a in term.eqn.invars])
        results[i] = total
    return [*(results[i] for i in range(carried)), *outs]


def _accumulated(jaxpr: Any, out: int, into: int, length: int) -> list[Term] | None:
    """The products that a step adds to a carried value which nothing else reads; None if it does other things too."""
    carry, total = jaxpr.invars[into], jaxpr.outvars[out]
    if sum(a is carry for eqn in jaxpr.eqns for a in eqn.invars) + sum(a is carry for a in jaxpr.outvars) != 1:
        return None
    found = terms(makers(jaxpr), total)
    rest = [term for term in found if term.var is not carry]
    if len(rest) != len(found) - 1 or not rest or any(t.path for t in found if t.var is carry):
        return None
    for term in rest:
        if term.eqn is None or term.eqn.primitive.name != "dot_general" or term.eqn.params["dimension_numbers"][1][0]:
            return None
        if any(isinstance(a, core.Literal) for a in term.eqn.invars) or not _known(term):
            return None
    stacked = length * sum(math.prod(a.aval.shape) for term in rest for a in term.eqn.invars)
    return rest if stacked <= STACKED * math.prod(total.aval.shape) else None


def _known(term: Term) -> bool:
    """Whether it is scaled by numbers only, which are there outside of the scan too."""
    return all(number is None or isinstance(number, core.Literal) for _, number in term.scales)


def _over_steps(jaxpr: Any, term: Term, stacks: Sequence[Any]) -> Any:
    """Σ over steps of a product, with its path behind it."""
    axes, _ = term.eqn.params["dimension_numbers"]
    contracted = tuple((0, *(axis + 1 for axis in side)) for side in axes)
    params = {k: term.eqn.params[k] for k in ("precision", "preferred_element_type")}
    value = lax.dot_general(*stacks, (contracted, ((), ())), **params)
    for eqn in term.path:
        inputs = [a.val if isinstance(a, core.Literal) else value for a in eqn.invars]
        (value,) = applied(jaxpr, eqn, inputs)
    return value


def _patched(eqn: Any, inputs: list[Any]) -> list[Any] | None:
    """The gradient of a kernel: a convolution of inputs with cotangents, as a product over positions.

    Its "batch" is the channels, its "features" the batch, its window the positions of the outputs, and its output the
    kernel. In groups, each group of channels meets its own group of output channels.
    """
    params = eqn.params
    if params["feature_group_count"] > 1:
        return None
    lhs, rhs, out = params["dimension_numbers"]
    patches, free = _patches(eqn, inputs[0])
    cotangents, groups = inputs[1], params["batch_group_count"]
    order = [*(axis for _, axis in free), out[1]]  # of the product's axes, which of the kernel's they are
    turned = [order.index(axis) for axis in range(len(order))]
    kept = {k: params[k] for k in ("precision", "preferred_element_type")}
    along = [axis for axis in range(patches.ndim) if axis not in {place for place, _ in free}]
    contracted = [_in_order(along, lhs), [rhs[1], *rhs[2:]]]
    if groups == 1:
        return [jnp.transpose(lax.dot_general(patches, cotangents, (contracted, ((), ())), **kept), turned)]
    channels = next(place for place, axis in free if axis == out[0])
    apart = [_split(patches, channels, groups), _split(cotangents, rhs[0], groups)]
    contracted = [
        [axis + (axis > own) for axis in axes] for axes, own in zip(contracted, (channels, rhs[0]), strict=True)
    ]
    product = lax.dot_general(*apart, (contracted, ((channels,), (rhs[0],))), **kept)  # (groups, *free, features)
    moved = jnp.moveaxis(product, 0, -2)
    return [jnp.transpose(moved.reshape(*moved.shape[:-2], -1), turned)]


def _in_order(places: list[int], lhs: Sequence[int]) -> list[int]:
    """Places in the patches of the batch and of the positions, axis by axis of the convolution."""
    axes = sorted((lhs[1], *lhs[2:]))
    return [places[axes.index(axis)] for axis in (lhs[1], *lhs[2:])]


def _split(array: Any, axis: int, groups: int) -> Any:
    return array.reshape(*array.shape[:axis], groups, -1, *array.shape[axis + 1 :])


def _patches(eqn: Any, x: Any) -> tuple[Any, list[tuple[int, int]]]:
    """The input with axes for those of the kernel: what each of its places sees at each position.

    With it the places of the axes that are not summed over, and which axes of the kernel they are. Each axis is done
    by slices, one after the other: a kernel of 3 × 3 takes 3 + 3 of them. Axes of the kernel go beside the channels,
    on the side on which the kernel has them, so that little has to be moved later.
    """
    params = eqn.params
    lhs, rhs, out = params["dimension_numbers"]
    padding = [(0, 0, 0)] * x.ndim
    for axis, (low, high), dilation in zip(lhs[2:], params["padding"], params["lhs_dilation"], strict=True):
        padding[axis] = (low, high, dilation - 1)
    found = lax.pad(x, jnp.zeros((), x.dtype), padding)
    axes: list[Any] = list(range(x.ndim))  # of x, or ("of the kernel", axis)
    for number, axis in enumerate(lhs[2:]):
        size, positions = eqn.outvars[0].aval.shape[out[2 + number]], eqn.invars[1].aval.shape[rhs[2 + number]]
        step, stride = params["window_strides"][number], params["rhs_dilation"][number]
        place = axes.index(axis)
        slices = [
            lax.slice_in_dim(found, k * step, k * step + (positions - 1) * stride + 1, stride, place)
            for k in range(size)
        ]
        beside = axes.index(lhs[0])
        if out[2 + number] > out[0]:
            beside += 1 + sum(isinstance(a, tuple) for a in axes[beside + 1 :])
        found = jnp.stack(slices, axis=beside)
        axes.insert(beside, ("kernel", out[2 + number]))
    free = [(i, out[0] if a == lhs[0] else a[1]) for i, a in enumerate(axes) if a == lhs[0] or isinstance(a, tuple)]
    return found, free
