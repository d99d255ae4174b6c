"""Every call of HIPS autograd: tapes, forward mode, double VJP, and errors that name the operation."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from autograd.core import VJPNode, add_outgrads, make_jvp, make_vjp
from autograd.extend import Box
from autograd.tracer import new_box, trace_stack
from autograd.util import toposort

from ntkest.linearization import NonDifferentiableError, NTKError, UnsupportedModeError

Function = Callable[[tuple[Any, ...]], Any]
"""A function of a tuple of arrays that returns one array."""

_LOCK = threading.RLock()


@contextmanager
def _tracing() -> Iterator[None]:
    """One trace at a time: autograd counts its traces in a global, which an exception would leave too high."""
    with _LOCK, warnings.catch_warnings():
        # A constant result is no reason to warn: it is refused or gives zeros below.
        warnings.filterwarnings("ignore", message="Output seems independent of input", category=UserWarning)
        top = trace_stack.top
        try:
            yield
        finally:
            trace_stack.top = top


def plain(raw: Any) -> Any:
    """A traced dict, list or tuple as a plain one with traced leaves; anything else as it is."""
    if not isinstance(raw, Box):
        return raw
    if type(raw._value) is dict:
        return {key: plain(raw[key]) for key in raw}
    if type(raw._value) in (list, tuple):
        return tuple(plain(raw[index]) for index in range(len(raw)))
    return raw


def reverse(function: Function, params: tuple[np.ndarray, ...]) -> Callable[[np.ndarray], list[Any]]:
    """Jᵀ of `function` at `params`, from one trace that every later pass uses again.

    Every parameter is a root of the trace. (To `autograd.make_vjp` they would be one tuple, for which each
    pass fills a tuple of zeros and adds to it, at several times the cost of the pass itself.)

    Raises
    ------
    UnsupportedModeError
        If autograd has no VJP of an operation.
    NonDifferentiableError
        If the function cannot be traced, or its result does not depend on the parameters in autograd's eyes.
    """
    roots = [VJPNode.new_root() for _ in params]
    with _tracing():
        try:
            with trace_stack.new_trace() as level:
                value = function(tuple(new_box(p, level, root) for p, root in zip(params, roots, strict=True)))
        except NTKError:
            raise
        except NotImplementedError as error:
            raise UnsupportedModeError(
                f"autograd cannot differentiate the function ({error}); define it with autograd.extend.defvjp"
            ) from error
        except Exception as error:  # plain NumPy fails on traced arrays in many ways
            raise NonDifferentiableError(
                f"the function runs on arrays, but not on autograd's traced arrays ({type(error).__name__}: {error}); "
                "inside it use autograd.numpy and autograd.scipy instead of numpy and scipy, and no assignment to "
                "entries of arrays"
            ) from error
    if getattr(value, "dtype", np.dtype(float)).kind == "O":
        raise NonDifferentiableError(
            "the function returned an array of objects: somewhere it calls numpy (dot, einsum, concatenate, …) where "
            "it should call autograd.numpy"
        )
    if not isinstance(value, Box) or value._trace != level:
        raise NonDifferentiableError(
            "the output does not depend on the parameters; look for numpy in place of autograd.numpy, or for params= "
            "that selects parameters which the output does not use"
        )
    end = value._node
    order = list(toposort(end))  # from the result to the roots

    def pullback(cotangent: np.ndarray) -> list[Any]:
        gradients = {end: (cotangent, False)}  # with autograd's mark of what may be added to in place
        for node in order:
            if node.parents:
                for parent, part in zip(node.parents, node.vjp(gradients.pop(node)[0]), strict=True):
                    gradients[parent] = add_outgrads(gradients.get(parent), part)
        return [gradients[root][0] if root in gradients else np.zeros(()) for root in roots]

    return pullback


def forward(function: Function, params: tuple[np.ndarray, ...], tangents: tuple[np.ndarray, ...]) -> Any:
    """J v by forward mode. Raises what autograd raises where an operation has no JVP."""
    with _tracing():
        return make_jvp(function, params)(tangents)[1]


def double_reverse(function: Function, params: tuple[np.ndarray, ...], like: np.ndarray) -> Callable[[Any], Any]:
    """The map v ↦ J v, as the transpose of ω ↦ Jᵀ ω, from one trace of that. Raises where it cannot be traced."""
    with _tracing():
        pullback, _ = make_vjp(function, params)
        pushforward, _ = make_vjp(pullback, np.ones_like(like))
    return pushforward  # type: ignore[no-any-return]


def explain(error: Exception) -> str:
    """What autograd lacks, for messages."""
    return str(error) if isinstance(error, NotImplementedError) else f"{type(error).__name__}: {error}"
