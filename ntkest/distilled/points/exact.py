"""Exact class kernels between examples, from their gradients in factors or rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...kernels.contraction import Block
from ...kernels.groups import group_kernels
from ...kernels.images import Images, outputs_each
from ...linearization import Array, Linearization
from ...tangents import Groups, SquareNorms

Gradients = tuple[Block, ...]
"""∇_θ f_c(x_n) for all outputs c and examples n: rows (O, n, P_l), or factors, for each parameter block."""


def gradients(J: Linearization) -> Gradients:
    """Those of all examples of J, for O reverse passes."""
    count, images = J.outputs.shape[0], Images(J, np.eye(outputs_each(J)))
    return next(iter(images.sweep([(0, count)])))


def class_kernels(J: Linearization, left: Gradients, right: Gradients | None = None) -> Array:
    """K_c (O, n, n') between two sets of examples, or one and itself, of the function of J."""
    whole, kernels = Groups((), (0,) * len(left)), []
    for c in range(outputs_each(J)):
        own = of_output(left, c)
        other = own if right is None else of_output(right, c)
        kernels += group_kernels(J, own, other, whole, False, 1)
    return J.xp.stack(kernels, axis=0)


def of_output(blocks: Sequence[Block], c: int) -> Gradients:
    """The gradients of one output; arrays that blocks share stay shared, which saves products."""
    cut: dict[int, Array] = {}

    def one(side: Array) -> Array:
        if id(side) not in cut:
            start = min(c, side.shape[0] - 1)
            cut[id(side)] = side[start : start + 1, ...]
        return cut[id(side)]

    return tuple((one(block[0]), one(block[1])) if isinstance(block, tuple) else one(block) for block in blocks)


def square_norms(J: Linearization) -> Array:
    """Σ_c ‖∇_θ f_c(x_n)‖² (N,) for all examples of J, for O reverse passes of which nothing is kept."""
    own: Any = J
    norms = own.map_example_vjp(SquareNorms(J.xp, (0,) * len(J.params), 1), Images(J, np.eye(outputs_each(J))).omega())
    return J.xp.sum(J.xp.reshape(norms, tuple(norms.shape[:2])), axis=0)
