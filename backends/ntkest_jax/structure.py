"""When two jaxprs are the same program: keys by structure, not by the Python function that was traced.

A fresh closure of the same network gives a fresh jaxpr, whose variables and custom-derivative rules are new objects.
Its key here is the same, so that what was compiled for the first serves the second.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

RULES = frozenset({"jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees"})
"""Parameters of custom-derivative calls that do not change the values once AD is done."""

LABELS = frozenset({"name"})
"""Parameters of `jit` that do not change the values."""

IGNORED = {
    "custom_jvp_call": RULES,
    "custom_vjp_call": RULES,
    "custom_vjp_call_jaxpr": RULES,
    "jit": LABELS,
    "pjit": LABELS,
}


class Same:
    """Equal only to another wrapper of the very same object, which it keeps alive so that no id comes back."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def structure(jaxpr: Any) -> Hashable:
    """A key that two jaxprs share if and only if they compute the same function of constants and arguments.

    The jaxpr must be one after AD: the rules of custom derivatives are left out of the key, the values
    that they gave are in it. Nested constants count by content (NumPy) or identity (jax arrays are immutable).
    """
    return _jaxpr(jaxpr, {})


def closed_arrays(jaxpr: Any) -> list[Any]:
    """All constants that jaxprs nested in `jaxpr` hold."""
    return [c for eqn in jaxpr.eqns for inner in _inner(eqn) for c in [*inner[1], *closed_arrays(inner[0])]]


def primitives(jaxpr: Any) -> frozenset[str]:
    """Names of all primitives in `jaxpr` and in what it nests."""
    names: set[str] = set()
    for eqn in jaxpr.eqns:
        names.add(eqn.primitive.name)
        for inner, _ in _inner(eqn):
            names |= primitives(inner)
    return frozenset(names)


def precision(jaxpr: Any) -> float:
    """The largest machine epsilon of what flows through `jaxpr`: a cast to bfloat16 inside limits the whole."""
    dtypes = {a.aval.dtype for a in [*jaxpr.invars, *jaxpr.outvars]}
    dtypes |= {v.aval.dtype for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "dtype")}
    largest = max((float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.floating)), default=0.0)  # type: ignore[no-untyped-call]
    return max([largest, *(precision(inner) for eqn in jaxpr.eqns for inner, _ in _inner(eqn))])


def _inner(eqn: Any) -> Iterator[tuple[Any, list[Any]]]:
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else [value]:
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr, item.consts
            elif isinstance(item, core.Jaxpr):
                yield item, []


def _jaxpr(jaxpr: Any, seen: dict[int, Hashable]) -> Hashable:
    if id(jaxpr) in seen:  # `jit` shares one jaxpr between its calls
        return seen[id(jaxpr)]
    number: dict[Any, int] = {}
    for var in [*jaxpr.constvars, *jaxpr.invars]:
        number[var] = len(number)
    inputs = (len(jaxpr.constvars), tuple(var.aval for var in number))
    body = []
    for eqn in jaxpr.eqns:
        read = tuple(_atom(a, number) for a in eqn.invars)
        for var in eqn.outvars:
            number[var] = len(number)
        written = tuple(var.aval for var in eqn.outvars)
        ignored = IGNORED.get(eqn.primitive.name, ())
        params = tuple((k, _value(v, seen)) for k, v in sorted(eqn.params.items()) if k not in ignored)
        body.append((Same(eqn.primitive), read, written, params))
    seen[id(jaxpr)] = (inputs, tuple(body), tuple(_atom(a, number) for a in jaxpr.outvars))
    return seen[id(jaxpr)]


def _atom(atom: Any, number: dict[Any, int]) -> Hashable:
    if isinstance(atom, core.Literal):
        return atom.aval, _value(atom.val, {})
    return number[atom]


def _value(value: Any, seen: dict[int, Hashable]) -> Hashable:
    """A hashable stand-in for a parameter of a primitive, equal only where the values cannot be told apart."""
    if isinstance(value, core.ClosedJaxpr):
        return "closed", _jaxpr(value.jaxpr, seen), tuple(_value(c, seen) for c in value.consts)
    if isinstance(value, core.Jaxpr):
        return "open", _jaxpr(value, seen)
    if isinstance(value, tuple | list):
        return type(value), tuple(_value(v, seen) for v in value)
    if isinstance(value, dict):
        return dict, tuple((k, _value(v, seen)) for k, v in value.items())
    if isinstance(value, jax.Array):
        return Same(value)
    if isinstance(value, bool | int | str | bytes | None):
        return type(value), value
    if isinstance(value, float):  # 0.0 == -0.0, but they are not the same constant
        return type(value), value.hex()
    if isinstance(value, np.ndarray | np.generic) or type(value).__name__ == "TypedNdArray":
        array = np.asarray(value)
        return type(value), str(array.dtype), array.shape, array.tobytes()
    try:
        hash(value)
    except TypeError:
        return Same(value)
    return type(value), value
