"""Containers of tensors: the inputs of a model, or the parameters of a function."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from dataclasses import replace as replace_fields
from typing import Any

import torch

from ntkest.linearization import flatten


def tensors(tree: Any) -> dict[str, torch.Tensor]:
    """The tensors of nested mappings, sequences and dataclasses, by dotted name."""
    return {name: leaf for name, leaf in flatten(tree) if isinstance(leaf, torch.Tensor)}


def rebuild(tree: Any, new: Mapping[str, Any], name: str = "") -> Any:
    """A copy of `tree` whose leaves are replaced where `new` has their dotted name; the walk is that of `flatten`."""

    def child(key: Any, value: Any) -> Any:
        return rebuild(value, new, f"{name}.{key}" if name else str(key))

    if tree is None:
        return None
    if isinstance(tree, Mapping):
        values = {key: child(key, value) for key, value in tree.items()}
        if type(tree) is dict:
            return values
        twin: Any = copy.copy(tree)  # keeps what a mapping of another type (OrderedDict, BatchEncoding) carries besides
        for key, value in values.items():
            twin[key] = value
        return twin
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(child(key, value) for key, value in zip(tree._fields, tree, strict=True)))
    if isinstance(tree, list | tuple):
        return type(tree)(child(index, value) for index, value in enumerate(tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace_fields(
            tree, **{field.name: child(field.name, getattr(tree, field.name)) for field in fields(tree)}
        )
    return new.get(name, tree)
