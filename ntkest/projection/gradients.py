"""Random projections of gradients that are there already."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from ..linearization import (
    Array,
    DeviceMismatchError,
    InvalidTypeError,
    NonDifferentiableError,
    ShapeError,
    device,
    scalar_dtype,
)
from .finite import check_features
from .kinds import random_matrix
from .pieces import pieces
from .sketches import sketch


def project_gradients(gradients: Any, dim: int, kind: str = "rademacher", seed: int = 0) -> Array:
    """Features Qᵀφ/√dim of given gradients φ, with the numbers that `project` has for them.

    Parameters
    ----------
    gradients : array (…, P), or tuple or list of arrays (…, P_l)
        Whole, or one array for each block of parameters, in their order. Axes in front of the last are free: examples,
        or examples and outputs.
    dim, kind, seed
        As for `project`. Whole gradients are those of a model with a single block.

    Returns
    -------
    array (…, dim)
        In the namespace, on the device and in the dtype of the gradients, or in float32 if that is shorter. Beside it
        there are tiles of Q of a few megabytes.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, DeviceMismatchError, NonDifferentiableError
    NonFiniteError
        Some features are not finite, since the gradients are not.
    """
    blocks = tuple(gradients) if isinstance(gradients, tuple | list) else (gradients,)
    lead = _checked(blocks)
    xp, sizes = array_namespace(*blocks), [int(block.shape[-1]) for block in blocks]
    matrix = random_matrix(dim, kind, seed, sum(sizes))
    made = sketch(xp, matrix, scalar_dtype(xp, blocks[0]))
    for index, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
        rows = xp.reshape(block, (1, math.prod(lead), size))
        for piece, start in pieces(xp, rows, size, made.width):
            made.add(piece, index, start)
    found = xp.reshape(made.result(), (*lead, matrix.dim))
    check_features(xp, found)
    return found


def _checked(blocks: tuple[Any, ...]) -> tuple[int, ...]:
    """The axes that the blocks have in common."""
    if not blocks or not all(is_array_api_obj(block) for block in blocks):
        given = ", ".join(type(block).__name__ for block in blocks) or "nothing"
        raise InvalidTypeError(f"gradients are an array (…, P), or a tuple of arrays (…, P_l), not {given}")
    try:
        xp = array_namespace(*blocks)
    except TypeError as error:
        raise DeviceMismatchError(f"the blocks of gradients must share one array namespace: {error}") from error
    shapes = [tuple(block.shape) for block in blocks]
    if any(not shape or 0 in shape or shape[:-1] != shapes[0][:-1] for shape in shapes):
        raise ShapeError(f"blocks of gradients have the shapes (…, P_l) with the same axes in front; got {shapes}")
    for block in blocks:
        if not xp.isdtype(block.dtype, "real floating"):
            raise NonDifferentiableError(f"gradients must be real floating point, not {block.dtype}")
        if device(block) != device(blocks[0]):
            raise DeviceMismatchError(f"blocks of gradients lie on {device(blocks[0])} and on {device(block)}")
    return shapes[0][:-1]
