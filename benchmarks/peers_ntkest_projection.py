"""Projections by ntkest, in torch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ntkest.projection import project_gradients

PACKAGES = ("ntkest", "torch", "numpy")

Project = Callable[[torch.Tensor], torch.Tensor]


def contestants() -> dict[str, Callable[[int, int, str], Project]]:
    """By name; of P, dim and kind."""
    return {"project_gradients": projector}


def projector(size: int, dim: int, kind: str) -> Project:
    """Nothing is prepared."""
    return lambda gradients: project_gradients(gradients, dim, kind)
