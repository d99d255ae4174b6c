"""Batches of JVPs and VJPs: the loop over probes, and the rule that picks its form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ntkest.linearization import Expand, InvalidTypeError, InvalidValueError, Reduce, ShapeError

from .cache import by_value
from .derivatives import Derivative, Parts, evaluate, is_traced

BUDGET = 2**28
"""Numbers that the images and intermediates of a vectorised chunk may hold, on an accelerator (1 GiB in float32)."""

WIDE = 8
"""Probes in a vectorised chunk of reverse passes through a `scan` on CPU: 8 and 16 are alike, 1 and 4 slower."""

NARROW = 2
"""Probes in a vectorised chunk of forward passes through dense layers on CPU: 2 and 4 are alike, 1 and 8 slower."""

UNROLLED = {"vjp": 4, "jvp": 2}
"""Chunks in one call of a compiled step, where steps are called again and again: XLA's CPU backend runs independent
convolutions side by side. All of them in one program would gain a tenth more and compile several times as long."""


@dataclass(frozen=True)
class Pass:
    """One mode ("jvp" or "vjp") of a function: its derivative, and the parts that a probe and an image have."""

    mode: str
    derivative: Derivative
    probe: tuple[jax.ShapeDtypeStruct, ...]
    image: tuple[jax.ShapeDtypeStruct, ...]

    def apply(self, consts: Sequence[Any], residuals: Sequence[Any], probes: Sequence[Any]) -> tuple[Any, ...]:
        """Parts (c, n) of c probes to parts (c, m) of their images."""
        count = probes[0].shape[0]

        def single(*probe: Any) -> list[Any]:
            parts = [p.reshape(s.shape).astype(s.dtype) for p, s in zip(probe, self.probe, strict=True)]
            return evaluate(self.derivative.linear, consts, [*residuals, *parts])

        # a batch of one costs more than none
        images = [i[None] for i in single(*probes)] if count == 1 else jax.vmap(single)(*probes)
        return tuple(jnp.reshape(i, (count, -1)) for i in images)


def default_chunk(step: Pass, count: int, platform: str) -> int:
    """Probes to push through together, by what the program is made of.

    On CPU single passes already fill the cores with dense layers and convolutions, and vectorising spoils the cache,
    but for the two small operands of a dense JVP; and the reverse pass of a `scan` adds up each weight's derivative
    step by step, which a wide chunk batches.
    """
    names = step.derivative.primitives
    if platform != "cpu":
        size = sum(math.prod(v.aval.shape) for e in step.derivative.linear.eqns for v in e.outvars)
        return max(1, min(count, int(BUDGET // max(1, size))))
    if "conv_general_dilated" in names:
        return 1
    best = {("vjp", True): WIDE, ("jvp", False): NARROW}
    return min(count, best.get((step.mode, "scan" in names), 1))


def stepwise(step: Pass, platform: str) -> bool:
    """Whether to call one compiled pass again and again: XLA's CPU convolutions lose their threads inside a loop."""
    return platform == "cpu" and "conv_general_dilated" in step.derivative.primitives


def run(
    step: Pass,
    consts: Parts,
    blocks: Any,
    reduce: Reduce,
    probes: Any,
    expand: Expand | None,
    chunk: int,
    platform: str,
) -> Any:
    """``reduce(images(expand(part)))`` for parts of `chunk` probes, stacked along the first axis."""
    if expand is None:  # with it, shapes are known only inside
        check_shapes(step, probes if step.mode == "jvp" else (probes,))
    body = _body(step, reduce, expand)
    one_by_one = stepwise(step, platform)
    if is_traced(*blocks, *consts[0], *consts[1], *jax.tree.leaves(probes)):
        return _whole(step, body, chunk, unrolled if one_by_one else scanned)(consts, blocks, probes)
    key = (by_value(reduce), by_value(expand), chunk)
    if one_by_one:
        return _loop(step, key, body, chunk, consts, blocks, probes)
    compiled = step.derivative.compiled
    return compiled.get(("map", *key), lambda: jax.jit(_whole(step, body, chunk, scanned)))(consts, blocks, probes)


def _body(step: Pass, reduce: Reduce, expand: Expand | None) -> Callable[..., Any]:
    def body(consts: Any, residuals: Any, part: Any) -> Any:
        packed = part if expand is None else expand(part)
        return reduce(_image(step, consts, residuals, packed))

    return body


def _image(step: Pass, consts: Any, residuals: Any, packed: Any) -> Any:
    """Tangents (c, P_1), … to J v (c, M), or cotangents (c, M) to blocks (c, P_1), …."""
    probes = (packed,) if step.mode == "vjp" else packed
    check_shapes(step, probes)
    images = step.apply(consts, residuals, probes)
    return images if step.mode == "vjp" else images[0]


def check_shapes(step: Pass, probes: Any) -> None:
    """Refuse probes that are not one array (c, n_l) for each part.

    Raises
    ------
    InvalidTypeError, ShapeError
    """
    if not isinstance(probes, tuple | list) or not all(hasattr(p, "shape") for p in probes):
        raise InvalidTypeError(
            "vjp takes one array (k, M) of cotangents, jvp a tuple of one array (k, P_l) a parameter; got "
            f"{type(probes[0] if step.mode == 'vjp' else probes).__name__}"
        )
    if len(probes) != len(step.probe):
        raise ShapeError(f"got {len(probes)} blocks of tangents for {len(step.probe)} parameters")
    for p, s in zip(probes, step.probe, strict=True):
        if len(p.shape) != 2 or p.shape[1] != math.prod(s.shape):
            raise ShapeError(f"probes must have shape (k, {math.prod(s.shape)}), got {tuple(p.shape)}")
    if len({p.shape[0] for p in probes}) != 1:
        raise ShapeError(f"all blocks need the same number of probes, got {[p.shape[0] for p in probes]}")


def count_of(probes: Any) -> int:
    """The number of probes in a tree."""
    counts = {a.shape[0] for a in jax.tree.leaves(probes)}
    if len(counts) != 1 or 0 in counts:
        raise InvalidValueError(
            f"probes need one common leading axis of at least one probe, got sizes {sorted(counts)}"
        )
    return int(counts.pop())


def residuals_of(step: Pass) -> Callable[[Any, Any], tuple[Any, ...]]:
    """The forward, from constants and blocks to what passes need of it."""
    return lambda consts, blocks: tuple(evaluate(step.derivative.forward, consts, blocks)[1:])


def _whole(step: Pass, body: Callable[..., Any], chunk: int, loop: Callable[..., Any]) -> Callable[..., Any]:
    def whole(consts: Parts, blocks: Any, probes: Any) -> Any:
        residuals = residuals_of(step)(consts[0], blocks)
        return loop(lambda part: body(consts[1], residuals, part), probes, chunk)

    return whole


def scanned(body: Callable[[Any], Any], probes: Any, chunk: int) -> Any:
    """``body`` of parts of `chunk` probes in a compiled loop, stacked."""
    count = count_of(probes)
    full = count // chunk * chunk
    if full == chunk:
        results = [body(rows_of(probes, 0, chunk))]
    else:  # rows are cut out inside the loop: split into (chunks, chunk, n) beforehand, they would all be copied
        stacked = lax.map(lambda i: body(rows_of(probes, i * chunk, chunk)), jnp.arange(full // chunk))
        results = [jax.tree.map(lambda a: a.reshape(full, *a.shape[2:]), stacked)]
    if full < count:
        results.append(body(rows_of(probes, full, count - full)))
    return concatenated(*results)


def rows_of(probes: Any, start: Any, size: int) -> Any:
    """`size` rows of all arrays of a tree."""
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size), probes)


def unrolled(body: Callable[[Any], Any], probes: Any, chunk: int) -> Any:
    """The same, written out."""
    starts = range(0, count_of(probes), chunk)
    return concatenated(*[body(rows_of(probes, s, min(chunk, count_of(probes) - s))) for s in starts])


def concatenated(*parts: Any, axis: int = 0) -> Any:
    """Trees of arrays put end to end along `axis`."""
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *a: jnp.concatenate(a, axis), *parts)


def _loop(
    step: Pass, key: tuple[Any, ...], body: Callable[..., Any], chunk: int, consts: Parts, blocks: Any, probes: Any
) -> Any:
    """The primal in one program, a few chunks at a time in a second, the stack in a third."""
    compiled = step.derivative.compiled
    count = count_of(probes)
    stride = chunk * UNROLLED[step.mode]

    def sliced(size: int) -> Callable[..., Any]:
        def part(consts: Any, residuals: Any, probes: Any, start: Any) -> Any:
            return unrolled(lambda rows: body(consts, residuals, rows), rows_of(probes, start, size), chunk)

        return jax.jit(part)

    residuals = compiled.get("primal", lambda: jax.jit(residuals_of(step)))(consts[0], blocks)
    results = []
    for start in range(0, count, stride):
        size = min(stride, count - start)
        part = compiled.get(("part", size, *key), lambda: sliced(size))  # noqa: B023 - called at once
        results.append(part(consts[1], residuals, probes, start))
    return compiled.get("stack", lambda: jax.jit(concatenated))(*results)
