"""What a layer's gradients are made of: its inputs a, and the cotangents b of its outputs.

The gradient of a weight that serves as a matrix at S positions is Σ_s b_s ⊗ a_s. A convolution is a dense layer on
patches of its inputs, a transposed one on patches of the cotangents, and a table of embeddings on unit vectors.

Below, b has the shape (c, n, *outputs for one example) and a has (n, *inputs of one example). The sides of the sum come
as (c or 1, n, S, p) and (c or 1, n, S, q), for a weight of p·q numbers whose first axis has p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from .patches import windows

Sides = tuple[torch.Tensor, torch.Tensor]


class Layer(Protocol):
    """How a weight is applied."""

    @property
    def groups(self) -> int:
        """Parts that the sides fall into if only equal parts are multiplied."""
        ...

    @property
    def varies(self) -> tuple[bool, bool]:
        """Which of the sides depends on the cotangent."""
        ...

    def prepared(self, a: torch.Tensor) -> torch.Tensor:
        """What the sides need of the inputs."""
        ...

    def vectors(self, b: torch.Tensor) -> torch.Tensor:
        """Cotangents (c, n, positions, out), as a bias is added to the outputs."""
        ...

    def sides(self, b: torch.Tensor, vectors: torch.Tensor, a: torch.Tensor) -> Sides:
        """Both sides, from cotangents, from `vectors` of them, and from `prepared` inputs."""
        ...


@dataclass(frozen=True)
class Dense:
    """A matrix (out, in) on vectors; with `flipped` it is (in, out)."""

    flipped: bool = False
    groups = 1

    @property
    def varies(self) -> tuple[bool, bool]:
        """See `Layer`."""
        return not self.flipped, self.flipped

    def prepared(self, a: torch.Tensor) -> torch.Tensor:
        """See `Layer`; (1, n, S, in)."""
        return a.reshape(1, a.shape[0], -1, a.shape[-1])

    def vectors(self, b: torch.Tensor) -> torch.Tensor:
        """See `Layer`."""
        return b.reshape(*b.shape[:2], -1, b.shape[-1])

    def sides(self, b: torch.Tensor, vectors: torch.Tensor, a: torch.Tensor) -> Sides:
        """See `Layer`."""
        return (a, vectors) if self.flipped else (vectors, a)

    def width(self, shape: Sequence[int]) -> int:
        """Of `vectors`, for outputs of this shape."""
        return shape[-1]

    def outputs(self, vectors: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Outputs of this shape, from `vectors` (positions, out) of them."""
        return vectors.reshape(shape)


@dataclass(frozen=True)
class Convolution:
    """A convolution with weight (out, in / groups, *kernel), its options given for each axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    """As ``torch.nn.functional.pad`` takes it."""
    dilation: tuple[int, ...]
    groups: int
    places: tuple[int, ...]
    """How many windows there are along each axis."""

    varies = (True, False)

    def prepared(self, a: torch.Tensor) -> torch.Tensor:
        """See `Layer`; (1, n, S, in · ∏ kernel)."""
        return self._patches(a.unsqueeze(0))

    def vectors(self, b: torch.Tensor) -> torch.Tensor:
        """See `Layer`."""
        return _positions_first(self._channels(b).flatten(4))

    def sides(self, b: torch.Tensor, vectors: torch.Tensor, a: torch.Tensor) -> Sides:
        """See `Layer`."""
        return vectors, a

    def width(self, shape: Sequence[int]) -> int:
        """See `Dense`."""
        return shape[-len(self.kernel) - 1]

    def outputs(self, vectors: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """See `Dense`."""
        return vectors.unflatten(0, (-1, math.prod(self.places))).mT.reshape(shape)

    def _channels(self, x: torch.Tensor) -> torch.Tensor:
        """(c, n, m, channels, *spatial) for the m inputs that an example may consist of."""
        axes = len(self.kernel) + 1
        return x.reshape(*x.shape[:2], math.prod(x.shape[2:-axes]), *x.shape[-axes:])

    def _patches(self, x: torch.Tensor) -> torch.Tensor:
        x = self._channels(x)
        lead = x.shape[:3]
        x = torch.nn.functional.pad(x.flatten(0, 2), self.padding) if any(self.padding) else x.flatten(0, 2)
        found = windows(x, self.kernel, self.stride, self.dilation, self.places)
        return _positions_first(found.reshape(*lead, *found.shape[1:]))


@dataclass(frozen=True)
class Transposed(Convolution):
    """A transposed convolution with weight (in, out / groups, *kernel): the pullback of the convolution."""

    varies = (False, True)

    def prepared(self, a: torch.Tensor) -> torch.Tensor:
        """See `Layer`; (1, n, S, in)."""
        return _positions_first(self._channels(a.unsqueeze(0)).flatten(4))

    def sides(self, b: torch.Tensor, vectors: torch.Tensor, a: torch.Tensor) -> Sides:
        """See `Layer`."""
        return a, self._patches(b)


@dataclass(frozen=True)
class Lookup:
    """A table (V, d) of which rows are looked up by integers; gradients of the row `padding`, if any, are dropped."""

    padding: int | None
    groups = 1
    varies = (False, True)

    def prepared(self, a: torch.Tensor) -> torch.Tensor:
        """See `Layer`; (1, n, S)."""
        return a.reshape(1, a.shape[0], -1)

    def vectors(self, b: torch.Tensor) -> torch.Tensor:
        """See `Layer`."""
        return b.reshape(*b.shape[:2], -1, b.shape[-1])

    def sides(self, b: torch.Tensor, vectors: torch.Tensor, a: torch.Tensor) -> Sides:
        """See `Layer`; the left side are the integers, (1, n, S)."""
        kept = vectors if self.padding is None else vectors * (a != self.padding).unsqueeze(-1)
        return a, kept


def direct(layer: Layer) -> Dense | Convolution:
    """The layer as one whose outputs are its inputs times the weight; no other is given here."""
    assert isinstance(layer, Dense | Convolution)
    return layer


def multiplied(sides: Sides, groups: int = 1) -> torch.Tensor:
    """Gradients (c, n, P): Σ_s left_s ⊗ right_s, of equal parts of the sides where there are groups."""
    left, right = (side.reshape(*side.shape[:3], groups, -1) for side in sides)
    rows: torch.Tensor = torch.einsum("cnsgp,cnsgq->cngpq", left, right)
    return rows.flatten(2)


def _positions_first(x: torch.Tensor) -> torch.Tensor:
    """(c, n, m·places, channels) of (c, n, m, channels, places), without a copy if m is 1."""
    return x.transpose(3, 4).flatten(2, 3)
