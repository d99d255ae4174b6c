"""Blocks of gradients of examples that were made apart, put together."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from .chunks import unfactored
from .errors import UnsupportedModeError
from .protocol import Array

Block = Array | tuple[Array, Array]


def join_examples(xp: ModuleType, parts: Sequence[Sequence[Block]]) -> tuple[Block, ...]:
    """The blocks of several sets of examples, (k, n_i, …) or factors, as those of all Σ n_i examples.

    Layers may be applied at different numbers of positions in different sets, as with sequences of other lengths:
    missing ones become zeros, which add nothing. A side that several blocks share is one object still.
    """
    if len(parts) == 1:
        return tuple(parts[0])
    known: dict[tuple[int, ...], Array] = {}
    return tuple(_block(xp, pieces, known) for pieces in zip(*parts, strict=True))


def _block(xp: ModuleType, pieces: Sequence[Block], known: dict[tuple[int, ...], Array]) -> Block:
    if all(isinstance(piece, tuple) for piece in pieces):
        positions = max(piece[1].shape[2] for piece in pieces)
        left, right = (_side(xp, sides, positions, known) for sides in zip(*pieces, strict=True))
        return left, right
    if any(isinstance(piece, tuple) and len(piece[0].shape) < len(piece[1].shape) for piece in pieces):
        raise UnsupportedModeError("a table of embeddings is looked up in some batches only; give batches of one kind")
    return _joined(xp, [unfactored(xp, piece) for piece in pieces])


def _side(xp: ModuleType, sides: Sequence[Array], positions: int, known: dict[tuple[int, ...], Array]) -> Array:
    key = (positions, *map(id, sides))
    if key not in known:
        known[key] = _joined(xp, [_padded(xp, side, positions) for side in sides])
    return known[key]


def _joined(xp: ModuleType, sides: Sequence[Array]) -> Array:
    count = max(int(side.shape[0]) for side in sides)
    return xp.concat([xp.broadcast_to(side, (count, *side.shape[1:])) for side in sides], axis=1)


def _padded(xp: ModuleType, side: Array, positions: int) -> Array:
    missing = positions - side.shape[2]
    if not missing:
        return side
    nothing = xp.zeros_like(xp.broadcast_to(side[:, :, :1, ...], (*side.shape[:2], missing, *side.shape[3:])))
    return xp.concat([side, nothing], axis=2)
