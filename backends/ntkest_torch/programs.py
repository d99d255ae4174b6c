"""A model as a pure function of its parameter blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ntkest.linearization import flatten, join, pick

from .flags import Autocast, Dice, one_thread, transforming
from .trees import rebuild

Named = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Point:
    """Where a function is linearized: everything that it reads, by name."""

    blocks: Named
    """The parameters to differentiate."""
    constants: Named
    """Frozen parameters, buffers, and the integer leaves of a pytree."""
    inputs: Named
    """The tensors among the arguments."""

    def with_blocks(self, blocks: Sequence[torch.Tensor]) -> Point:
        """The same with other tensors for the blocks, in order."""
        return replace(self, blocks=dict(zip(self.blocks, blocks, strict=True)))


class Program(ABC):
    """A pure function of a `Point`."""

    autocast: Autocast

    module: nn.Module | None = None
    """The module that is called, if one is."""

    private = False
    """Whether points hold copies of the user's tensors, which nothing can reach."""

    @abstractmethod
    def __call__(self, point: Point, replay: bool = True) -> torch.Tensor:
        """The one output tensor; `replay` repeats the first call's random numbers, if there were any."""

    def within(self, point: Point, run: Callable[[], Any]) -> Any:
        """``run()`` while the model holds the tensors of `point`, for what a graph recomputes (checkpointing)."""
        return run()


class UserProgram(Program):
    """Calls the model, leaving alone everything that is the user's.

    Constants and inputs that the first call was seen to write to (running statistics, an in-place
    activation on the input) are cloned for every call; the others are passed as they are.
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any, autocast: Autocast) -> None:
        self._arguments = (tuple(args), dict(kwargs))
        self._output = output
        self.autocast = autocast
        self._written: tuple[frozenset[str], frozenset[str]] | None = None
        self.dice: Dice | None = None
        """Set if the model draws random numbers: later calls then repeat the draws of the first."""

    @abstractmethod
    def _call(self, point: Point, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the model returns."""

    def __call__(self, point: Point, replay: bool = True) -> torch.Tensor:
        """See `Program`."""
        first = self._written is None
        written = self._written or (frozenset(point.constants), frozenset(point.inputs))
        constants, inputs = (
            {name: t.clone() if name in names else t for name, t in tensors.items()}
            for tensors, names in zip((point.constants, point.inputs), written, strict=True)
        )
        args, kwargs = rebuild(self._arguments, inputs)
        repeat = self.dice.replayed() if replay and self.dice is not None else nullcontext()
        with repeat, self.autocast.entered():
            raw = self._call(replace(point, constants=constants), args, kwargs)
            outputs: torch.Tensor = join(flatten(pick(raw, self._output)), torch.cat)
        if first and not transforming():
            self._written = (_changed(point.constants, constants), _changed(point.inputs, inputs))
        return outputs


def _changed(before: Named, after: Named) -> frozenset[str]:
    """Names of clones that were written to. Batch norm writes without counting, so values (if any) are compared too."""
    return frozenset(
        name for name, t in after.items() if t._version > 0 or not (t.is_meta or torch.equal(t, before[name]))
    )


class ModuleProgram(UserProgram):
    """A `torch.nn.Module` with its own parameters swapped for others during the call."""

    module: nn.Module

    def __init__(self, module: nn.Module, *rest: Any) -> None:
        super().__init__(*rest)
        self.module = module
        self._names = _names(module)

    def within(self, point: Point, run: Callable[[], Any]) -> Any:
        """See `Program.within`."""
        state = {f"module.{name}": tensor for name, tensor in self._state(point).items()}
        with one_thread:
            return torch.func.functional_call(_Inside(self.module), state, (run,), tie_weights=False)

    def _state(self, point: Point) -> Named:
        """The tensors by all places where the module holds them."""
        tensors = {**point.constants, **point.blocks}
        return {place: tensors[name] for place, name in self._names.items()}

    def first_name(self, name: str) -> str:
        """The name under which a parameter or buffer is listed, for any of the places where it is tied."""
        places = [
            *self.module.named_parameters(remove_duplicate=False),
            *self.module.named_buffers(remove_duplicate=False),
        ]
        here = next((tensor for place, tensor in places if place == name), None)
        return next((place for place, tensor in places if tensor is here), name)

    def _call(self, point: Point, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        with one_thread:
            return torch.func.functional_call(
                self.module, self._state(point), tuple(args), dict(kwargs), tie_weights=False
            )


def _names(module: nn.Module) -> dict[str, str]:
    """Under which name each parameter and buffer is listed first, by the places where it is held, tied ones included.

    A module that is registered twice counts once. `functional_call` would find the tensors of its second place by
    itself, take those that it has just put into the first for the module's own, and leave them there.
    """
    first: dict[int, str] = {}
    places = {}
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                place = f"{prefix}.{name}" if prefix else name
                places[place] = first.setdefault(id(tensor), place)
    return places


class _Inside(nn.Module):
    """Runs a function where a module's forward would run, so that `functional_call` has its tensors in place."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, run: Callable[[], Any]) -> Any:
        return run()


class FunctionProgram(UserProgram):
    """A function of a pytree of parameters."""

    def __init__(self, function: Callable[..., Any], tree: Any, *rest: Any) -> None:
        super().__init__(*rest)
        self._function = function
        self.tree = tree

    def _call(self, point: Point, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return self._function(rebuild(self.tree, {**point.constants, **point.blocks}), *args, **kwargs)
