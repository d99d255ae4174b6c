"""From a Python function to jaxprs: the function itself, and one derivative a mode.

A derivative is two jaxprs: `forward` computes the outputs and what the linear part needs (the residuals), once;
`linear` maps one cotangent or tangent to its image, once a probe. Arrays that the function closed over are not in the
jaxprs but beside them, so that new data is a new argument and not a new program.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ntkest.linearization import UnsupportedModeError

from .cache import Memory
from .structure import closed_arrays, primitives, structure


@dataclass(frozen=True)
class Closure:
    """A jaxpr and its constants: what a Python function computes, once and for all."""

    jaxpr: Any
    consts: tuple[Any, ...]

    def __call__(self, *args: Any) -> list[Any]:
        """Flat arguments to flat results."""
        return evaluate(self.jaxpr, self.consts, args)


@dataclass(frozen=True, eq=False)
class Derivative:
    """One mode, without constants.

    `forward(consts, *blocks)` gives (outputs, *residuals) and `linear(consts, *residuals, *probe)` the parts of an
    image, by the named primitives. `compiled` is common to all derivatives of the same structure. The jaxprs are this
    function's own: while tracing they may be differentiated again, and then custom rules, which structure leaves out,
    count.
    """

    forward: Any
    linear: Any
    compiled: Memory[Any]
    primitives: frozenset[str]
    passes: int


Parts = tuple[tuple[Any, ...], tuple[Any, ...]]
"""Constants of the forward and of the linear jaxpr."""

_compiled: Memory[Memory[Any]] = Memory(256)


def compiled_for(*jaxprs: Any) -> Memory[Any]:
    """What was compiled for jaxprs of this structure; for any that come later, too."""
    key: Hashable = tuple(structure(jaxpr) for jaxpr in jaxprs)
    return _compiled.get(key, lambda: Memory(64))


def forget() -> None:
    """Drop everything that was compiled."""
    _compiled.clear()


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluate a jaxpr, with calls of `jit` that hold constants opened up, so that those can be hoisted too."""
    if not closed_arrays(jaxpr):
        return list(jax.core.eval_jaxpr(jaxpr, consts, *args))
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(a) for a in eqn.invars]
        inner = eqn.params.get("jaxpr")
        if eqn.primitive.name in ("jit", "pjit") and (inner.consts or closed_arrays(inner.jaxpr)):
            results = evaluate(inner.jaxpr, [frozen(c) for c in inner.consts], inputs)
        else:
            results = applied(jaxpr, eqn, inputs)
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(a) for a in jaxpr.outvars]


def applied(jaxpr: Any, eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """The results of one equation of a jaxpr."""
    free = {a: x for a, x in zip(eqn.invars, inputs, strict=True) if not isinstance(a, core.Literal)}
    single = jaxpr.replace(constvars=[], invars=list(free), outvars=eqn.outvars, eqns=[eqn])
    return list(jax.core.eval_jaxpr(single, (), *free.values()))


def trace(function: Callable[..., Any], *examples: Any) -> tuple[Closure, Any]:
    """`function` at arguments like `examples`, and the structure of its result."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    return Closure(closed.jaxpr, tuple(frozen(c) for c in closed.consts)), shape


def frozen(array: Any) -> Any:
    """A constant as an array that nobody can change: NumPy arrays are copied."""
    return array if isinstance(array, jax.Array) else jnp.array(np.asarray(array), copy=True)


def shaped(array: Any) -> Any:
    """Shape and dtype of `array`, without weak type or content."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype)  # type: ignore[no-untyped-call]


def is_traced(*arrays: Any) -> bool:
    """Whether any of `arrays` is a tracer, or everything is staged anyway (inside `jax.jit`)."""
    return any(isinstance(a, jax.core.Tracer) for a in (*arrays, jax.device_put(np.float32(0))))


def reverse(primal: Closure, blocks: Sequence[Any]) -> tuple[Derivative, Parts]:
    """VJPs of `primal`, which maps blocks to one array.

    Raises
    ------
    UnsupportedModeError
    """
    return derivative(jax.vjp, primal, blocks, lambda outputs: (outputs,))


def forward(primal: Closure, blocks: Sequence[Any], pull: tuple[Derivative, Parts] | None) -> tuple[Derivative, Parts]:
    """JVPs of `primal`; where it has none of its own, its VJPs `pull`, transposed.

    Raises
    ------
    UnsupportedModeError
    """
    try:
        return derivative(jax.linearize, primal, blocks, lambda outputs: tuple(blocks))
    except UnsupportedModeError:
        if pull is None:
            raise
    return _transposed(*pull, blocks)


def derivative(
    transform: Callable[..., Any], primal: Closure, blocks: Sequence[Any], probe: Callable[[Any], tuple[Any, ...]]
) -> tuple[Derivative, Parts]:
    """The two jaxprs of ``transform(primal, *blocks)``, which gives the outputs and a linear map of `probe` of them.

    Raises
    ------
    UnsupportedModeError
    """
    try:
        first, (outputs, pull) = trace(lambda *b: transform(lambda *c: primal(*c)[0], *b), *blocks)
        residuals, tree = jax.tree.flatten(pull)
        like = [shaped(p) for p in probe(outputs)]
        count = len(residuals)

        def linear(*flat: Any) -> Any:
            return jax.tree.leaves(jax.tree.unflatten(tree, flat[:count])(*flat[count:]))

        second, _ = trace(linear, *residuals, *like)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UnsupportedModeError(str(error)) from error
    if "custom_lin" in primitives(second.jaxpr):  # traced, but it could not be run
        raise UnsupportedModeError("a jax.custom_vjp function has no forward mode")
    return joined(first, second, 1)


def _transposed(pull: Derivative, parts: Parts, blocks: Sequence[Any]) -> tuple[Derivative, Parts]:
    """JVPs as VJPs of the VJPs, which are linear: functions with a `jax.custom_vjp` have no others."""
    outputs, *residuals = [v.aval for v in pull.forward.outvars]
    count = len(residuals)

    def linear(*flat: Any) -> Any:
        zero = jnp.zeros(outputs.shape, outputs.dtype)
        transpose = jax.vjp(lambda w: tuple(evaluate(pull.linear, parts[1], [*flat[:count], w])), zero)[1]
        return transpose(tuple(flat[count:]))

    like = [shaped(a) for a in (*residuals, *blocks)]
    try:
        second, _ = trace(linear, *like)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UnsupportedModeError(str(error)) from error
    return joined(Closure(pull.forward, parts[0]), second, 2)


def joined(first: Closure, second: Closure, passes: int) -> tuple[Derivative, Parts]:
    """A derivative of its two jaxprs, and the constants of both."""
    consts = (first.consts, second.consts)
    # what is traced must not outlive its trace
    compiled = Memory[Any](1) if is_traced(*first.consts, *second.consts) else compiled_for(first.jaxpr, second.jaxpr)
    return Derivative(first.jaxpr, second.jaxpr, compiled, primitives(second.jaxpr), passes), consts
