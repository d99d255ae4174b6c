"""The point at which a model is linearized: aliases of the user's tensors, or private copies of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ntkest.linearization import (
    DeviceMismatchError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    select,
)

from .flags import grad_mode
from .programs import FunctionProgram, ModuleProgram, Named, Point, Program
from .trees import tensors
from .watch import Watch


def keeper(live: bool, private: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """How to hold on to a user's tensor: itself (`live`), a clone (`private`), or an alias with the same counter."""

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_inference():  # autograd refuses those, and they have no version counter to watch
            with torch.inference_mode(False):
                return tensor.clone()
        if live:
            return tensor
        return tensor.detach().clone() if private else tensor.detach()

    return keep


def module_point(module: nn.Module, inputs: Named, wanted: Any, live: bool, private: bool) -> Point:
    """The point of a module: the `wanted` parameters (default: those with requires_grad), and all else as constants."""
    keep = keeper(live, False)  # with copy=True the module itself is a copy already
    parameters = dict(module.named_parameters())
    for name, parameter in parameters.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InvalidValueError(
                f"parameter {name!r} is not initialized yet; call the model once before linearizing"
            )
    if not parameters:
        raise InvalidValueError(f"the module {type(module).__name__} has no parameters to differentiate")
    if wanted is None:
        chosen = {name for name, parameter in parameters.items() if parameter.requires_grad}
        if not chosen:
            raise InvalidValueError(
                f"all {len(parameters)} parameters of the model are frozen (requires_grad=False); unfreeze some, or "
                "name them in params="
            )
    else:
        chosen = set(select(list(parameters), wanted))
    blocks = {name: keep(p) for name, p in parameters.items() if name in chosen}
    constants = {name: keep(p) for name, p in parameters.items() if name not in chosen}
    constants |= {name: keep(b) for name, b in module.named_buffers()}
    return Point(blocks, constants, {name: keeper(live, private)(t) for name, t in inputs.items()})


def function_point(tree: Any, inputs: Named, wanted: Any, live: bool, private: bool) -> Point:
    """The point of a function of a pytree: its floating leaves as blocks, or those of them that are `wanted`."""
    keep = keeper(live, private)
    leaves = tensors(tree)
    real = [name for name, leaf in leaves.items() if leaf.is_floating_point() or leaf.is_complex()]
    if not real:
        raise InvalidValueError("the parameters given hold no floating point tensor to differentiate")
    chosen = set(select(real, wanted))
    blocks = {name: keep(leaf) for name, leaf in leaves.items() if name in chosen}
    constants = {name: keep(leaf) for name, leaf in leaves.items() if name not in chosen}
    return Point(blocks, constants, {name: keep(t) for name, t in inputs.items()})


def watch_over(program: Program, point: Point) -> Watch:
    """A watch over all that `point` refers to; over nothing if it is private."""
    if program.private:
        return Watch((), None)
    named = [
        *((f"parameter {name!r}", t) for name, t in point.blocks.items()),
        *((f"parameter or buffer {name!r}", t) for name, t in point.constants.items()),
        *((f"input {name!r}", t) for name, t in point.inputs.items()),
    ]
    return Watch(named, program.module)


def moved(program: Program, point: Point, params: Any, live: bool) -> tuple[Point, Watch]:
    """`point` with the tensors of `params` (a state, a module, a pytree, or the blocks in order) in their places."""
    keep = keeper(live, program.private)
    with grad_mode(live):
        new = {name: keep(tensor) for name, tensor in _named(program, point, params).items()}
    known = point.blocks | point.constants
    for name, tensor in new.items():
        old = known[name]
        if tensor.shape != old.shape:
            raise ShapeError(f"at(): {name!r} has shape {tuple(tensor.shape)}, here it is {tuple(old.shape)}")
        if tensor.dtype != old.dtype:
            raise InvalidTypeError(f"at(): {name!r} is {tensor.dtype}, here it is {old.dtype}")
        if tensor.device != old.device:
            raise DeviceMismatchError(f"at(): {name!r} is on {tensor.device}, here it is on {old.device}")
    there = replace(
        point,
        blocks={name: new.get(name, old) for name, old in point.blocks.items()},
        constants={name: new.get(name, old) for name, old in point.constants.items()},
    )
    return there, watch_over(program, there)


def _named(program: Program, point: Point, params: Any) -> Named:
    if isinstance(params, nn.Module):
        params = {name: t for name, t in params.state_dict(keep_vars=True).items() if torch.is_tensor(t)}
    if isinstance(params, Sequence) and len(params) == len(point.blocks) and all(map(torch.is_tensor, params)):
        return dict(zip(point.blocks, params, strict=True))
    if isinstance(program, FunctionProgram):
        given = tensors(params)
    elif isinstance(params, Mapping) and isinstance(program, ModuleProgram):
        # A state names a tied parameter once a place; the first place that the module lists is ours.
        given = {}
        for name, tensor in params.items():
            given.setdefault(program.first_name(name), tensor)
    else:
        wanted = f"a state (name to tensor), a module, or {len(point.blocks)} tensors"
        raise InvalidTypeError(f"at() takes {wanted}, not {type(params).__name__}")
    for name, tensor in given.items():
        if name not in point.blocks and name not in point.constants:
            raise InvalidValueError(f"at(): the model has no parameter or buffer {name!r}")
        if not isinstance(tensor, torch.Tensor):
            raise InvalidTypeError(f"at(): {name!r} is {type(tensor).__name__}, not a tensor")
    return given


def copied(module: nn.Module) -> nn.Module:
    """A private copy of a module, so that nothing that happens to the user's reaches it."""
    with grad_mode(True):
        return copy.deepcopy(module)
