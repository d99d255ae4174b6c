"""Kernels that are not finite, traced back to their examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..linearization import Array, NonFiniteError, is_concrete, numbers
from .contraction import Block
from .images import Range

Side = tuple[Range, Sequence[Block]]
"""Examples, and their gradients."""


def check_finite(xp: Any, tiles: Sequence[Array], sides: tuple[Side, Side]) -> None:
    """Refuse NaN and infinity in the products of two sides, and name the examples that they come from.

    Raises
    ------
    NonFiniteError
    """
    with np.errstate(all="ignore"):  # a sum is finite where all entries are, unless it overflows
        sound = xp.isfinite(xp.sum(tiles[0]))
        for tile in tiles[1:]:
            sound = sound & xp.isfinite(xp.sum(tile))
    if not is_concrete(sound) or bool(sound) or all(bool(xp.all(xp.isfinite(tile))) for tile in tiles):
        return
    bad = sorted({start + n for (start, _), blocks in sides for block in blocks for n in _broken(xp, block)})
    if bad:
        raise NonFiniteError(
            f"gradients of examples {', '.join(map(str, bad[:8]))}{', …' if len(bad) > 8 else ''} are NaN or infinite; "
            "look at the model's derivatives there, or leave them out"
        )
    places = " and ".join(f"{start} … {stop - 1}" for (start, stop), _ in sides)
    raise NonFiniteError(
        f"gradients are finite, but their products between examples {places} overflow {tiles[0].dtype}; use float64, "
        "or scale the outputs"
    )


def _broken(xp: Any, block: Block) -> list[int]:
    """Examples of a block (k, n, …) with anything that is not finite."""
    if isinstance(block, tuple):
        return [n for side in block for n in _broken(xp, side)]
    if not xp.isdtype(block.dtype, "real floating"):
        return []
    axes = tuple(axis for axis in range(len(block.shape)) if axis != 1)
    sound = numbers(xp.astype(xp.all(xp.isfinite(block), axis=axes), xp.int32))
    return [n for n, finite in enumerate(sound) if not finite]
