"""Kernels by nngeometry, which takes the products of dense layers in factors, too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nngeometry.gram import GramMatrix
from torch.utils.data import DataLoader, TensorDataset

from .kernels_networks import Given
from .kernels_torch import network

PACKAGES = ("nngeometry", "torch")


def contestants() -> dict[str, Callable[[Given, str], Callable[[], torch.Tensor]]]:
    """By name."""
    return {"nngeometry": gram}


def gram(given: Given, kind: str) -> Callable[[], torch.Tensor]:
    """All examples in one batch."""
    module = network(given)
    loader = DataLoader(TensorDataset(torch.tensor(given.x)), batch_size=len(given.x))

    def function(x: torch.Tensor) -> torch.Tensor:
        outputs = module(x)
        return outputs if kind == "full" else outputs.sum(1, keepdim=True) / given.outputs**0.5

    def call() -> torch.Tensor:
        found = GramMatrix(module, loader, function).to_torch()  # (a, n, b, m)
        return found.permute(1, 0, 3, 2).flatten(2).flatten(0, 1).detach()

    return call
