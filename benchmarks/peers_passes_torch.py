"""O reverse passes of the whole batch in torch: what the exact trace of a classifier is held against."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .kernels_networks import Given
from .kernels_torch import network

PACKAGES = ("torch",)


def contestants() -> dict[str, Callable[[Given, str], Callable[[], Any]]]:
    """By name."""
    return {
        "torch, a gradient a cotangent": partial(passes, False),
        "torch, all gradients together": partial(passes, True),
    }


def passes(together: bool, given: Given, kind: str) -> Callable[[], Any]:
    """One forward, and the gradients of the sums of each output over the batch."""
    module, x = network(given), torch.tensor(given.x)
    params = list(module.parameters())
    cotangents = torch.eye(given.outputs)[:, None, :].expand(-1, len(x), -1)

    def call() -> Any:
        outputs = module(x)
        if together:
            return torch.autograd.grad(outputs, params, cotangents, is_grads_batched=True)
        return [torch.autograd.grad(outputs, params, omega, retain_graph=True) for omega in cotangents]

    return call
