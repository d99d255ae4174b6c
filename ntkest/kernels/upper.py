"""The upper half of the full kernel of a set of examples with itself, in strips of cotangents, and the whole of it.

A few cotangents of all examples are multiplied with those and the ones behind them; what lies below the diagonal is a
transpose of what lies above. The shares of layers are added strip by strip, which caches hold, and mirrored only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType

from array_api_compat import is_jax_namespace

from ..linearization import Array
from .contraction import COPIED_TILE, TILE, Block, gram, gram_of_side, paired

FEWEST, MOST, COPIED = 4, 10, 5
"""Strips at least, for fewer save less than strips of examples do; at most; and at most in XLA, which copies rows."""

Spans = tuple[tuple[int, int], ...]
"""The cotangents of each strip; empty for a kernel that is made whole."""

Upper = tuple[Array, ...]
"""For each strip of cotangents i … j-1 their products (j - i, n, k - i, n) with those from i on."""


def spans_of(xp: ModuleType, cotangents: int, examples: int) -> Spans:
    """How a kernel falls into strips."""
    most, tile = (COPIED, COPIED_TILE) if is_jax_namespace(xp) else (MOST, TILE)
    count = min(most, cotangents, cotangents * examples // tile)
    return tuple(pairwise(cotangents * i // count for i in range(count + 1))) if count >= FEWEST else ()


def upper(xp: ModuleType, block: Block, spans: Spans) -> Upper:
    """The share of a block of gradients that are not multiplied out from factors."""
    if not isinstance(block, tuple):
        return tuple(gram(xp, block[i:j, ...], block[i:, ...]) for i, j in spans)
    common = {side: gram_of_side(xp, block, block, side) for side in (0, 1) if block[side].shape[0] == 1}

    def strip(i: int, j: int) -> Array:
        some, behind = ((block[0][span, ...], block[1][span, ...]) for span in (slice(i, j), slice(i, None)))
        first, second = (common[side] if side in common else gram_of_side(xp, some, behind, side) for side in (0, 1))
        return paired(xp, first, second)

    return tuple(strip(i, j) for i, j in spans)


def cut(whole: Array, spans: Spans) -> Upper:
    """The upper half of (k, n, k, n)."""
    return tuple(whole[i:j, :, i:, :] for i, j in spans)


def added(total: Upper | None, share: Upper) -> Upper:
    """The sum, strip by strip."""
    return share if total is None else tuple(a + b for a, b in zip(total, share, strict=True))


@dataclass(frozen=True)
class Mirror:
    """Makes the whole (n·k, n·k), k fastest, of the upper half: a compiled program, hashable by value."""

    xp: ModuleType
    spans: Spans

    def __call__(self, half: Upper) -> Array:
        """Each strip, and before it the transposes of those above."""
        xp, rows = self.xp, []
        for at, (i, j) in enumerate(self.spans):
            above = [
                xp.permute_dims(strip[:, :, i - start : j - start, :], (3, 2, 1, 0))
                for (start, _), strip in zip(self.spans[:at], half, strict=False)
            ]
            rows.append(xp.concat([*above, xp.permute_dims(half[at], (1, 0, 3, 2))], axis=3))
        whole = xp.concat(rows, axis=1)
        n, k = whole.shape[:2]
        return xp.reshape(whole, (n * k, n * k))
