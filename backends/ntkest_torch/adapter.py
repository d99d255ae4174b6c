"""The entry point: from a torch module or function to a checked linearization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ntkest.linearization import (
    DeviceMismatchError,
    InvalidTypeError,
    InvalidValueError,
    Options,
    check_dtypes,
    check_finite,
    check_repeatable,
    find_examples,
)

from .activations import Activations, activations
from .flags import Autocast, Dice, grad_mode, transforming
from .forward import Route
from .gradients import value_and_gradient
from .linearization import TorchLinearization, xp
from .places import copied, function_point, module_point, watch_over
from .precision import epsilon_of
from .programs import FunctionProgram, ModuleProgram, Point, Program, UserProgram
from .trees import tensors


class TorchBackend:
    """Linearizes modules (``nn.Module``), and functions of a pytree of tensors."""

    name = "torch"

    def linearize(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> TorchLinearization:
        """See `ntkest.linearize`. Costs two forwards, up to six on single examples, and one pass a mode.

        Without ``check`` it costs one forward. Inside a torch.func transform, or while torch.compile traces,
        nothing has a value to look at, so checks are skipped; parameters are live there.
        """
        if options.copy and options.differentiable:
            raise InvalidValueError("copy=True cuts off the gradients that differentiable=True keeps; choose one")
        hidden = transforming()
        live = options.differentiable or hidden
        check = options.check and not hidden
        with grad_mode(True):
            private = options.copy or _writes_weights(target)
            program, point = _prepare(target, args, kwargs, options, live, private)
            program.private = private
        devices = _devices(point)
        dice = None if hidden else Dice([t.device for t in _all(point)])
        with dice.kept() if dice else nullcontext():
            watch = watch_over(program, point)
            try:
                J = TorchLinearization(program, point, watch, Route(), live, check)
            except RuntimeError as error:
                if len(devices) > 1:
                    raise DeviceMismatchError(f"{_spread(devices)}: {_first_line(error)}") from error
                raise
            if dice and dice.rolled:
                program.dice = dice
            check_dtypes(xp, J.params, J.param_names, J.outputs)
            _check_places(J)
            J.epsilon = epsilon_of([J.outputs, *_all(point)], program.autocast.dtypes)
            if check:
                with grad_mode(False):
                    check_finite(xp, J.params, J.param_names, J.outputs)
                    again = program(point, replay=False)
                    check_repeatable(xp, J.outputs.detach(), again, J.epsilon, _advice(program))
            return J.finish(_examples(program, point, J, options.batch_axis, check))

    def value_and_gradient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See `ntkest.linearization.Differentiator`."""
        return value_and_gradient(function)

    def activations(self, target: Any) -> Activations | None:
        """See `ntkest.linearization.Watcher`; None for a function, whose layers are not known."""
        return activations(target) if isinstance(target, nn.Module) else None


def _prepare(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, live: bool, private: bool
) -> tuple[UserProgram, Point]:
    if isinstance(target, nn.Module):
        target = getattr(target, "_orig_mod", target)  # below what torch.compile wraps around it
        if private:
            target = copied(target)
        inputs = tensors((tuple(args), dict(kwargs)))
        autocast = Autocast(_kinds([*target.parameters(), *inputs.values()]))
        program: UserProgram = ModuleProgram(target, args, kwargs, options.output, autocast)
        return program, module_point(target, inputs, options.params, live, private)
    owner = getattr(target, "__self__", None)
    if isinstance(owner, nn.Module) and (not args or isinstance(args[0], torch.Tensor)):
        raise InvalidTypeError(
            f"linearize got the method {target.__name__!r} of a {type(owner).__name__}, whose parameters it would not "
            "see; pass the module itself (output= picks from its result)"
        )
    if not args:
        raise InvalidTypeError("linearize(f, params, *inputs) needs the parameters; for a module pass the module")
    tree, rest = args[0], args[1:]
    inputs = tensors((tuple(rest), dict(kwargs)))
    autocast = Autocast(_kinds([*tensors(tree).values(), *inputs.values()]))
    program = FunctionProgram(target, tree, rest, kwargs, options.output, autocast)
    return program, function_point(tree, inputs, options.params, live, private)


def _writes_weights(target: Any) -> bool:
    """Whether calling the module rescales its own parameters in place, so that only a copy of it may be called."""
    return isinstance(target, nn.Module) and any(
        isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None for part in target.modules()
    )


def _kinds(found: Sequence[torch.Tensor]) -> tuple[str, ...]:
    return tuple(k for k in dict.fromkeys(["cpu", *(t.device.type for t in found)]) if k != "meta")


def _all(point: Point) -> list[torch.Tensor]:
    return [*point.blocks.values(), *point.constants.values(), *point.inputs.values()]


def _devices(point: Point) -> dict[str, torch.device]:
    """One example for each device met: its name, and where it is. Scalars may live anywhere."""
    found: dict[torch.device, str] = {}
    for what, named in (("parameter", point.blocks), ("parameter", point.constants), ("input", point.inputs)):
        for name, tensor in named.items():
            if tensor.ndim:
                found.setdefault(tensor.device, f"{what} {name!r}")
    return {name: device for device, name in found.items()}


def _spread(devices: Mapping[str, torch.device]) -> str:
    places = ", ".join(f"{name} is on {device}" for name, device in devices.items())
    return f"{places}; move the model and its inputs to one device"


def _check_places(J: TorchLinearization) -> None:
    """All blocks and the outputs on one device: block sums need that, wherever the model computes in between."""
    seen = {f"parameter {name!r}": p.device for name, p in zip(J.param_names, J.params, strict=True)}
    seen["the output"] = J.outputs.device
    if len(set(seen.values())) > 1:
        first = {device: name for name, device in reversed(seen.items())}
        raise DeviceMismatchError(_spread({name: device for device, name in first.items()}))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _advice(program: Program) -> str:
    if isinstance(program, ModuleProgram) and any(part.training for part in program.module.modules()):
        return "the model is in train mode: call model.eval(), or switch its dropout off"
    return "the model is stochastic: fix its random numbers, or pass them in as an input"


def _examples(
    program: Program, point: Point, J: TorchLinearization, batch_axis: int | str | None, check: bool
) -> tuple[int, int] | None:
    names = list(point.inputs)

    def call(arguments: list[torch.Tensor]) -> torch.Tensor:
        with grad_mode(False):
            return program(replace(point, inputs=dict(zip(names, arguments, strict=True))))

    with grad_mode(False):
        return find_examples(xp, call, list(point.inputs.values()), J.outputs.detach(), batch_axis, J.epsilon, check)
