"""From whatever a model returns to the one array that is differentiated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from .errors import InvalidTypeError, InvalidValueError, NonDifferentiableError
from .protocol import Array


def pick(raw: Any, output: Any) -> Any:
    """The part of a model's result that ``output=`` (a key, an index, an attribute or a function) asks for."""
    if output is None:
        return raw
    if callable(output):
        return output(raw)
    if isinstance(raw, Mapping):
        if output in raw:
            return raw[output]
        known = ", ".join(map(repr, raw))
    elif isinstance(output, int) and isinstance(raw, Sequence):
        if -len(raw) <= output < len(raw):
            return raw[output]
        known = f"0 to {len(raw) - 1}"
    elif isinstance(output, str):
        if hasattr(raw, output):
            return getattr(raw, output)
        known = f"the attributes of {type(raw).__name__}"
    else:
        raise InvalidTypeError(
            f"output={output!r} cannot pick from {type(raw).__name__}; give a key, an index, an attribute or a function"
        )
    raise InvalidValueError(f"output={output!r} is not in the model's result; it has {known}")


def flatten(tree: Any, name: str = "") -> list[tuple[str, Any]]:
    """(dotted name, leaf) for nested mappings, sequences and dataclasses; None leaves are dropped."""
    if tree is None:
        return []
    if isinstance(tree, Mapping):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        items = list(zip(tree._fields, tree, strict=True))
    elif isinstance(tree, list | tuple):
        items = [(str(index), value) for index, value in enumerate(tree)]
    elif is_dataclass(tree) and not isinstance(tree, type):
        items = [(field.name, getattr(tree, field.name)) for field in fields(tree)]
    else:
        return [(name, tree)]
    return [leaf for key, value in items for leaf in flatten(value, f"{name}.{key}" if name else key)]


def join(leaves: Sequence[tuple[str, Array]], concatenate: Callable[[list[Array], int], Array]) -> Array:
    """One array from named array leaves.

    One leaf stays as it is. Several that share their first axis N become (N, D), side by side; others
    are flattened and put end to end. `concatenate(arrays, axis)` is the framework's own, so that
    derivatives pass through.
    """
    if not leaves:
        raise NonDifferentiableError("the model returned no array; use output= to pick what to differentiate")
    for name, leaf in leaves:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "reshape"):
            where = f" at {name!r}" if name else ""
            raise InvalidTypeError(
                f"the model's result{where} is {type(leaf).__name__}, not an array; use output= to pick an array"
            )
    arrays = [leaf for _, leaf in leaves]
    if len(arrays) == 1:
        return arrays[0]
    if all(len(a.shape) > 0 for a in arrays) and len({a.shape[0] for a in arrays}) == 1 and arrays[0].shape[0] > 0:
        return concatenate([a.reshape(a.shape[0], -1) for a in arrays], 1)
    return concatenate([a.reshape(-1) for a in arrays], 0)
