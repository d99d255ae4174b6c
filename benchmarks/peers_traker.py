"""Projections by traker, on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from trak.projectors import BasicProjector, ProjectionType

PACKAGES = ("traker", "torch")

NAMES = {"gaussian": "normal"}
"""What kinds are called here, where it is something else."""

Project = Callable[[torch.Tensor], torch.Tensor]


def contestants() -> dict[str, Callable[[int, int, str], Project]]:
    """By name; of P, dim and kind."""
    return {"BasicProjector": projector}


def projector(size: int, dim: int, kind: str) -> Project:
    """trak's CPU projector, whose features are not divided by √dim: that is done here."""
    made = BasicProjector(size, dim, 0, ProjectionType(NAMES.get(kind, kind)), torch.device("cpu"))
    return lambda gradients: made.project(gradients, 0) / dim**0.5
