"""Kernels and the exact trace by ntkest, in torch and in jax, of a J made beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ntkest

from .kernels_networks import Given

PACKAGES = ("ntkest", "numpy")


def contestants() -> dict[str, Callable[[Given, str], Callable[[], Any]]]:
    """By framework."""
    return {"torch": in_torch, "jax": in_jax}


def in_torch(given: Given, kind: str) -> Callable[[], Any]:
    """Of a module."""
    import torch

    from .kernels_torch import network

    return asked(ntkest.linearize(network(given), torch.tensor(given.x)), kind)


def in_jax(given: Given, kind: str) -> Callable[[], Any]:
    """Of a function."""
    import jax

    from .kernels_jax import network

    call = asked(ntkest.linearize(*network(given)), kind)
    return lambda: jax.block_until_ready(call())


def asked(J: Any, kind: str) -> Callable[[], Any]:
    """The call."""
    if kind == "trace":
        return lambda: ntkest.trace(J, method="exact").value
    return (lambda: ntkest.ntk(J)) if kind == "full" else (lambda: ntkest.pntk(J))
