"""Projections by dattri, on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from dattri.func.projection import BasicProjector, ProjectionType

PACKAGES = ("dattri", "torch")

NAMES = {"gaussian": "normal"}
"""What kinds are called here, where it is something else."""

Project = Callable[[torch.Tensor], torch.Tensor]


def contestants() -> dict[str, Callable[[int, int, str], Project]]:
    """By name; of P, dim and kind."""
    return {"BasicProjector": projector}


def projector(size: int, dim: int, kind: str) -> Project:
    """dattri's CPU projector."""
    made = BasicProjector(size, dim, 0, ProjectionType(NAMES.get(kind, kind)), torch.device("cpu"))
    return lambda gradients: made.project(gradients, 0)
