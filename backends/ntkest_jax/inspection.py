"""The primal, and the checks made on it, with as few compilations as possible.

One program gives the outputs and both images that the adjoint check needs; what remains is done on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy as host
import jax
import jax.numpy as jnp
import numpy as np

from ntkest.linearization import adjoint_probes, check_adjoint, check_finite, check_repeatable

from .derivatives import Closure, compiled_for, evaluate, is_traced
from .linearization import JaxLinearization
from .passes import Pass
from .structure import primitives, structure


def measured(J: JaxLinearization, shape: Any, check: bool, epsilon: float) -> JaxLinearization:
    """J with its outputs; when checked, also with its exponent, after the finiteness and adjoint checks.

    Costs a forward, and when checked one pass a mode. While tracing nothing is checked.

    Raises
    ------
    NonFiniteError, InconsistentDerivativesError
    """
    mode, step = next(iter(J.passes.items()))
    consts = J.consts[mode][0]
    if is_traced(*J.params, *consts):
        return J.replaced(outputs=_primal(step)(consts, J.params), exponent=0)
    if not check:
        program = step.derivative.compiled.get("outputs", lambda: jax.jit(_primal(step)))
        return J.replaced(outputs=program(consts, J.params))

    steps = tuple(J.passes.values())
    like = np.broadcast_to(np.zeros((), shape.dtype), shape.shape)
    blocks = [np.broadcast_to(np.zeros((), p.dtype), p.shape) for p in J.params]
    omega, v = adjoint_probes(host, blocks, like)
    probes = {"vjp": (omega,), "jvp": v}
    key = ("images", *(s.derivative.compiled for s in steps))
    program = step.derivative.compiled.get(key, lambda: jax.jit(_all_images(steps)))
    outputs, finite, images = program(list(J.consts.values()), J.params, [probes[s.mode] for s in steps])
    if not np.all(np.asarray(finite)):
        check_finite(host, [np.asarray(p) for p in J.params], J.param_names, np.asarray(outputs))
    found = {s.mode: tuple(np.asarray(i) for i in parts) for s, parts in zip(steps, images, strict=True)}
    view: Any = SimpleNamespace(
        xp=host,
        params=blocks,
        outputs=like,
        modes=J.modes,
        vjp=lambda _: found["vjp"],
        jvp=lambda _: found["jvp"][0],
    )
    return J.replaced(outputs=outputs, exponent=check_adjoint(view, epsilon))


def _primal(step: Pass) -> Callable[..., Any]:
    return lambda consts, blocks: evaluate(step.derivative.forward, consts, blocks)[0]


def _all_images(steps: Sequence[Pass]) -> Callable[..., Any]:
    """One probe a mode: (outputs, finite flags, images)."""

    def images(consts: Any, blocks: Any, probes: Any) -> Any:
        results = []
        for step, (first, second), probe in zip(steps, consts, probes, strict=True):
            outputs, *residuals = evaluate(step.derivative.forward, first, blocks)
            results.append(step.apply(second, residuals, probe))
        finite = jnp.stack([jnp.all(jnp.isfinite(a)) for a in (*blocks, outputs)])
        return outputs, finite, results

    return images


def outputs(closure: Closure, blocks: Sequence[Any]) -> Any:
    """The one result of a traced function at concrete blocks, compiled once for its structure."""
    jaxpr = closure.jaxpr
    program = compiled_for(jaxpr).get("outputs", lambda: jax.jit(lambda c, b: evaluate(jaxpr, c, b)[0]))
    return program(closure.consts, tuple(blocks))


def check_retraced(primal: Closure, again: Callable[[], tuple[Closure, Any]], J: Any, epsilon: float) -> None:
    """Refuse functions with hidden state or randomness: trace again, and run again unless that shows the same.

    Two equal jaxprs with equal constants give equal outputs, if nothing calls back to Python.

    Raises
    ------
    NotRepeatableError
    """
    second, _ = again()
    pure = not any("callback" in name for name in primitives(primal.jaxpr))
    if pure and structure(primal.jaxpr) == structure(second.jaxpr) and same(primal.consts, second.consts):
        return
    check_repeatable(
        host,
        np.asarray(J.outputs),
        np.asarray(outputs(second, J.params)),
        epsilon,
        "functions of jax must be pure: pass random keys as inputs, and keep no state in closures",
    )


def same(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two lists of constants hold the same values; tracers only if they are the same objects."""
    return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, jax.core.Tracer):
        return False
    if not hasattr(a, "dtype"):
        return bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return _content(a) == _content(b)


def _content(array: Any) -> bytes:
    """Bytes, so that NaN equals NaN and -0.0 is not 0.0."""
    keys = isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if keys else array).tobytes()


def is_numeric(leaf: Any) -> bool:
    """Whether a leaf of the inputs is an array of numbers (and not of random keys)."""
    if isinstance(leaf, jax.Array):
        return not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    return isinstance(leaf, np.ndarray)
