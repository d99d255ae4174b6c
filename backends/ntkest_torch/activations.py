"""What flows through a module on the way: its last hidden representation, and what its batch norms are given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .flags import grad_mode, one_thread

Activations = Callable[[torch.Tensor], tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]]


def activations(module: nn.Module) -> Activations:
    """See `ntkest.linearization.Watcher`: the input of the last dense layer to be called, and of all batch norms.

    The module is called as it is, with copies of its buffers, so that none of them changes.
    """
    places = dict(module.named_modules())
    norms = [part for part in places.values() if isinstance(part, _BatchNorm)]
    layers = [part for part in places.values() if isinstance(part, nn.Linear)]

    def watched(inputs: torch.Tensor) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
        hidden: list[torch.Tensor] = []
        normalised: list[torch.Tensor] = []

        def seen(found: list[torch.Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda part, args: found.append(args[0])

        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        with one_thread, grad_mode(inputs.requires_grad), ExitStack() as hooks:
            for parts, found in ((layers, hidden), (norms, normalised)):
                for part in parts:
                    hooks.callback(part.register_forward_pre_hook(seen(found)).remove)
            torch.func.functional_call(module, buffers, (inputs,))
        return (hidden[-1] if hidden else None), tuple(normalised)

    return watched
