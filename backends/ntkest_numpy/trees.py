"""Parameter trees of NumPy arrays: taken apart by dotted name, copied, and put together again."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from autograd.extend import Box

from ntkest.linearization import InvalidTypeError, TracedValueError


def rebuild(tree: Any, leaf: Callable[[str, Any], Any], name: str = "") -> Any:
    """`tree` with every leaf replaced by ``leaf(name, value)``; names as `flatten` gives them."""
    if tree is None:
        return None

    def below(key: Any, value: Any) -> Any:
        return rebuild(value, leaf, f"{name}.{key}" if name else str(key))

    if isinstance(tree, Mapping):
        items = {key: below(key, value) for key, value in tree.items()}
        if type(tree) is dict or not isinstance(tree, MutableMapping):
            return items
        mapping = copy.copy(tree)  # an OrderedDict, a defaultdict or the user's own class
        mapping.update(items)
        return mapping
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(below(key, value) for key, value in zip(tree._fields, tree, strict=True)))
    if isinstance(tree, list | tuple):
        return type(tree)(below(index, value) for index, value in enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return dataclasses.replace(tree, **{f.name: below(f.name, getattr(tree, f.name)) for f in _fields(tree)})
    return leaf(name, tree)


def copied(tree: Any) -> Any:
    """`tree` with its arrays copied, so that what the caller does to them later is not seen."""
    return rebuild(tree, lambda name, value: _copy(f"input {name!r}", value))


def parameters(tree: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A copy of a parameter tree, and its differentiable leaves by dotted name.

    Arrays and NumPy or Python numbers of floating (or complex, which is refused later) dtype are parameters, numbers
    as arrays of shape (). Everything else (integers, booleans, strings, functions) is a constant.
    """
    found: dict[str, np.ndarray] = {}

    def visit(name: str, value: Any) -> Any:
        value = _copy(f"parameter {name!r}", value)
        if isinstance(value, float | complex | np.inexact):
            value = np.asarray(value)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fc":
            found[name or "params"] = value
        return value

    return rebuild(tree, visit), found


def replaced(tree: Any, values: Mapping[str, Any]) -> Any:
    """`tree` with the parameters named in `values` replaced."""
    return rebuild(tree, lambda name, value: values.get(name or "params", value))


def arrays(tree: Any) -> list[np.ndarray]:
    """The arrays of a tree that have axes; numbers and arrays of shape () are the same for every example."""
    found: list[np.ndarray] = []
    rebuild(tree, lambda name, value: found.append(value) if _has_axes(value) else None)
    return found


def exchanged(tree: Any, new: Iterator[np.ndarray]) -> Any:
    """`tree` with the arrays that `arrays` finds replaced by those of `new`, in order."""
    return rebuild(tree, lambda name, value: next(new) if _has_axes(value) else value)


def _has_axes(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0


def _copy(what: str, value: Any) -> Any:
    if isinstance(value, Box):
        raise TracedValueError(
            f"{what} is being traced by autograd; estimates with the numpy adapter cannot be differentiated, so call "
            "linearize outside of grad, or use the jax or torch adapter"
        )
    if isinstance(value, np.ndarray):
        if type(value) is not np.ndarray:
            raise InvalidTypeError(f"{what} is a {type(value).__name__}; autograd needs a plain numpy.ndarray")
        return value.copy()
    return value


def _fields(tree: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(tree) if field.init]
