"""Blocks of gradients of examples that were made apart, put together."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from .chunks import unfactored
from .errors import UnsupportedModeError
from .protocol import Array

Block = Array | tuple[Array, Array]


def join_examples(xp: ModuleType, pieces: Sequence[Block]) -> Block:
    """Blocks (k, n_i, …), or factors, as one of Σ n_i examples.

    Layers may be applied at different numbers of positions in different pieces, as with sequences of other lengths:
    missing ones become zeros, which add nothing.
    """
    if len(pieces) == 1:
        return pieces[0]
    if all(isinstance(piece, tuple) for piece in pieces):
        positions = max(piece[1].shape[2] for piece in pieces)
        padded = [tuple(_padded(xp, side, positions) for side in piece) for piece in pieces]
        left, right = (_joined(xp, sides) for sides in zip(*padded, strict=True))
        return left, right
    if any(isinstance(piece, tuple) and len(piece[0].shape) < len(piece[1].shape) for piece in pieces):
        raise UnsupportedModeError("a table of embeddings is looked up in some batches only; give batches of one kind")
    return _joined(xp, [unfactored(xp, piece) for piece in pieces])


def _joined(xp: ModuleType, sides: Sequence[Array]) -> Array:
    count = max(int(side.shape[0]) for side in sides)
    return xp.concat([xp.broadcast_to(side, (count, *side.shape[1:])) for side in sides], axis=1)


def _padded(xp: ModuleType, side: Array, positions: int) -> Array:
    missing = positions - side.shape[2]
    if not missing:
        return side
    nothing = xp.zeros_like(xp.broadcast_to(side[:, :, :1, ...], (*side.shape[:2], missing, *side.shape[3:])))
    return xp.concat([side, nothing], axis=2)
