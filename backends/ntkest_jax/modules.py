"""From what a user hands in to parameter blocks, constants, and a call.

Flax and Equinox are recognised by the module names of the classes that an object inherits from, and are
imported only when the user's object comes from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from ntkest.linearization import InvalidTypeError, InvalidValueError, select


@dataclass(frozen=True)
class Split:
    """Parameters taken apart: named blocks, the leaves that stay constant, and the way back."""

    names: tuple[str, ...]
    blocks: tuple[Any, ...]
    rest: tuple[Any, ...]
    merge: Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Model:
    """What is differentiated: `holder` has the parameters, `call(holder, args, kwargs)` gives the raw outputs."""

    holder: Any
    call: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
    split: Callable[[Any], Split]
    args: tuple[Any, ...]


def comes_from(thing: Any, module: str) -> bool:
    """Whether a class that `thing` inherits from was defined in `module` or below it."""
    return any(f"{cls.__module__}.".startswith(f"{module}.") for cls in type(thing).__mro__)


def understand(target: Any, args: tuple[Any, ...], wanted: Any) -> Model:
    """Tell the forms of `linearize` apart.

    Raises
    ------
    InvalidTypeError, InvalidValueError
    """
    owner = target if comes_from(target, "flax.linen") else getattr(target, "__self__", None)
    if comes_from(owner, "flax.linen") and (owner is target or getattr(target, "__name__", "") == "apply"):
        return _linen(owner, args, wanted)
    if comes_from(target, "flax.nnx.module"):
        return Model(target, _call_holder, lambda m: split_nnx(m, wanted), args)
    if comes_from(target, "equinox._module") and any(is_parameter(leaf) for leaf in jax.tree.leaves(target)):
        return Model(target, _call_holder, lambda m: split_pytree(m, wanted), args)
    if not args:
        raise InvalidTypeError(
            f"linearize({type(target).__name__}) got no parameters; call linearize(f, params, *inputs) with a pytree "
            "of arrays, or give a flax.nnx or Equinox module, or a linen module and its variables"
        )
    holder, *inputs = args
    splitter = split_nnx if comes_from(holder, "flax.nnx.module") else split_pytree
    return Model(holder, lambda p, a, k: target(p, *a, **k), lambda p: splitter(p, wanted), tuple(inputs))


def _call_holder(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return module(*args, **kwargs)


def _linen(module: Any, args: tuple[Any, ...], wanted: Any) -> Model:
    if not args or not isinstance(args[0], Mapping) or "params" not in args[0]:
        raise InvalidValueError(
            f"for the flax.linen module {type(module).__name__} call linearize(module, variables, *inputs) with the "
            "variables that module.init returned: a mapping with the collection 'params'"
        )

    def split(variables: Any) -> Split:
        inner = split_pytree(variables["params"], wanted)
        others = {k: v for k, v in variables.items() if k != "params"}
        rest = (*inner.rest, *jax.tree.leaves(others))
        return Split(inner.names, inner.blocks, rest, lambda blocks: {**others, "params": inner.merge(blocks)})

    return Model(args[0], lambda v, a, k: module.apply(v, *a, **k), split, args[1:])


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf is an array that could have a derivative (complex ones too: they are refused by name later)."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def split_pytree(tree: Any, wanted: Any) -> Split:
    """Arrays with a derivative are parameters; integers, keys, strings and functions are constants.

    A Python float is a parameter, as in `jax.grad`, but a setting (a dropout rate, say) inside an Equinox module.
    One array at two places counts twice, as in `jax.grad`.
    """
    leaves: list[tuple[str, Any, bool]] = []
    outer, _ = tree_flatten_with_path(tree, is_leaf=_is_equinox)
    for path, node in outer:
        floats = not _is_equinox(node)
        for inner, leaf in tree_flatten_with_path(node)[0]:
            name = keystr((*path, *inner), simple=True, separator=".") or "params"
            leaves.append((name, leaf, is_parameter(leaf) or (floats and isinstance(leaf, float))))
    treedef = jax.tree.structure(tree)
    chosen = _chosen(leaves, wanted)
    free = [is_free and name in chosen for name, _, is_free in leaves]
    return _split(leaves, free, lambda values: jax.tree.unflatten(treedef, values))


def split_nnx(module: Any, wanted: Any) -> Split:
    """`nnx.Param` variables are parameters (shared ones once); statistics, counters and keys are constants."""
    from flax import nnx

    parts: Any = nnx.split(module, nnx.Param, ...)
    graph, params, others = parts
    flat, treedef = tree_flatten_with_path(params)
    leaves = [(keystr(p, simple=True, separator=".").removesuffix(".value"), v, is_parameter(v)) for p, v in flat]
    chosen = _chosen(leaves, wanted)
    constants = tuple(jax.tree.leaves(others))
    structure = jax.tree.structure(others)

    def merge(values: list[Any]) -> Any:
        # Variables are made anew, so that a module that updates its state does so on this copy only
        return nnx.merge(graph, jax.tree.unflatten(treedef, values), jax.tree.unflatten(structure, constants))

    part = _split(leaves, [free and name in chosen for name, _, free in leaves], merge)
    return Split(part.names, part.blocks, (*part.rest, *constants), part.merge)


def _chosen(leaves: list[tuple[str, Any, bool]], wanted: Any) -> set[str]:
    names = [name for name, _, free in leaves if free]
    return set(select(names, wanted)) if names else set()


def _split(leaves: list[tuple[str, Any, bool]], free: list[bool], build: Callable[[list[Any]], Any]) -> Split:
    fixed = [None if f else unchanging(leaf) for (_, leaf, _), f in zip(leaves, free, strict=True)]

    def merge(blocks: tuple[Any, ...]) -> Any:
        values = iter(blocks)
        return build([next(values) if f else constant for constant, f in zip(fixed, free, strict=True)])

    return Split(
        tuple(name for (name, _, _), f in zip(leaves, free, strict=True) if f),
        tuple(_block(leaf) for (_, leaf, _), f in zip(leaves, free, strict=True) if f),
        tuple(constant for constant, f in zip(fixed, free, strict=True) if not f),
        merge,
    )


def unchanging(leaf: Any) -> Any:
    """A constant or an input as it is now: NumPy arrays are copied, because they may change under us."""
    return np.array(leaf, copy=True) if isinstance(leaf, np.ndarray) else leaf


def _block(leaf: Any) -> Any:
    """A parameter as a jax array; NumPy arrays are copied, because they may change under us."""
    return leaf if isinstance(leaf, jax.Array) else jnp.array(leaf, copy=True)


def _is_equinox(node: Any) -> bool:
    return comes_from(node, "equinox._module")
