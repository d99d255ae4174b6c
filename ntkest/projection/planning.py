"""How much of the features is made at a time, and where it stands among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.tiles import Place
from ..threads import Range

STORED = 2**25
"""Bytes of a piece that goes to a store: enough to be worth a tile of Q, little enough to be lost."""


@dataclass(frozen=True)
class Plan:
    """Pieces of features (N, O, dim): of some examples (axis 0), or of some columns of Q (axis 2).

    It is the layout of a store, too; see `ntkest.kernels.store.Layout`.
    """

    shape: tuple[int, int, int]
    axis: int
    step: int
    """Examples or columns in a piece; fewer in the last."""
    tile: int
    """Numbers of a tile of Q."""

    def ranges(self) -> list[Range]:
        """The examples or columns of each piece."""
        count = self.shape[self.axis]
        return [(start, min(start + self.step, count)) for start in range(0, count, self.step)]

    def place(self, span: Range) -> Place:
        """Which piece a range is."""
        index = span[0] // self.step
        return (0, index) if self.axis else (index, 0)

    def span(self, place: Place) -> Range:
        """The range of a piece."""
        start = max(place) * self.step
        return start, min(start + self.step, self.shape[self.axis])

    def part(self, span: Range) -> tuple[Any, ...]:
        """The index of a piece in all features."""
        return (*(slice(None),) * self.axis, slice(*span), ...)

    def arrays(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See `Layout.arrays`."""
        return self.shape, (*self.shape[: self.axis], self.step, *self.shape[self.axis + 1 :])

    def places(self) -> list[Place]:
        """See `Layout.places`."""
        return [self.place(span) for span in self.ranges()]

    def images(self, place: Place) -> list[tuple[int, ...]]:
        """See `Layout.images`."""
        return [(place[0], 0, place[1])]

    def laid(self, place: Place, tile: Any) -> list[tuple[tuple[int, ...], Any]]:
        """See `Layout.laid`."""
        return [((place[0], 0, place[1]), tile)]

    def sums(self, place: Place, tiles: Sequence[np.ndarray]) -> dict[str, Any]:
        """See `Layout.sums`: none."""
        return {}
