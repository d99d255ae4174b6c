"""Kernels by torch.func, in the two forms of PyTorch's tutorial on neural tangent kernels.

Of the Jacobian contraction the form here is kinder: gradients of the examples are made once, for both sides of the
kernel are the same examples.

Reference: "Neural Tangent Kernels", docs.pytorch.org/tutorials/intermediate/neural_tangent_kernels.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from .kernels_networks import Given
from .kernels_torch import network

PACKAGES = ("torch",)


def contestants() -> dict[str, Callable[[Given, str], Callable[[], torch.Tensor]]]:
    """By name."""
    return {"torch.func, Jacobian contraction": contraction, "torch.func, NTK-vector products": vector_products}


def single(given: Given, kind: str) -> tuple[Callable[[Any, torch.Tensor], torch.Tensor], Any, torch.Tensor]:
    """The function of one example, to O outputs or for pNTK to their sum over √O alone."""
    module = network(given)
    params = {name: p.detach() for name, p in module.named_parameters()}

    def function(params: Any, x: torch.Tensor) -> torch.Tensor:
        outputs = functional_call(module, params, (x.unsqueeze(0),)).squeeze(0)
        return outputs if kind == "full" else outputs.sum(0, keepdim=True) / given.outputs**0.5

    return function, params, torch.tensor(given.x)


def contraction(given: Given, kind: str) -> Callable[[], torch.Tensor]:
    """Gradients of all examples, and their products layer by layer."""
    function, params, x = single(given, kind)

    def call() -> torch.Tensor:
        jacobians = [j.flatten(2) for j in vmap(jacrev(function), (None, 0))(params, x).values()]
        total = sum(torch.einsum("naf,mbf->namb", j, j) for j in jacobians)
        return total.flatten(2).flatten(0, 1)

    return call


def vector_products(given: Given, kind: str) -> Callable[[], torch.Tensor]:
    """K e_o for each pair of examples and output o: a VJP by one example, and a JVP by the other."""
    function, params, x = single(given, kind)

    def entry(x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        def product(cotangent: torch.Tensor) -> torch.Tensor:
            _, pull = vjp(lambda p: function(p, x1), params)
            return jvp(lambda p: function(p, x2), (params,), pull(cotangent))[1]

        outputs = given.outputs if kind == "full" else 1
        return vmap(product)(torch.eye(outputs))

    def call() -> torch.Tensor:
        found = vmap(lambda x1: vmap(lambda x2: entry(x1, x2))(x))(x)  # (n, m, a, b)
        return found.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)

    return call
