"""Gradients of a scalar with respect to arrays, through linearizations that are made inside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ntkest.linearization import NonDifferentiableError

from .flags import grad_mode

Tensors = tuple[torch.Tensor, ...]


def value_and_gradient(function: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Tensors]]:
    """See `ntkest.linearization.Differentiator`."""

    def evaluated(arrays: Tensors, *rest: Any) -> tuple[torch.Tensor, Tensors]:
        with grad_mode(True):
            leaves = tuple(a.detach().clone().requires_grad_() for a in arrays)
            value = function(leaves, *rest)
            if not value.requires_grad:
                raise NonDifferentiableError(
                    "the scalar does not depend on the arrays as autograd sees it: they are unused, or detached on the "
                    "way; linearize with differentiable=True inside the function"
                )
            gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        found = (torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True))
        return value.detach(), tuple(g.detach() for g in found)

    return evaluated
