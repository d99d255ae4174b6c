"""What a distilled kernel cost, beside what exact kernels of the same data cost.

Gradients and passes of the distilled route are counted where they are taken. All else follows from shapes, by formulas
that stand here; one multiplication and one addition are two FLOPs, and symmetric halves are counted once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ..columns import aligned
from ..kernels.images import Images, item_bytes, outputs_each
from ..linearization import Linearization, scalar_dtype
from ..memory import size_text
from ..projection.blocks import Projection
from ..projection.kinds import random_matrix


class Layer(NamedTuple):
    """How the gradient of one output at one example comes, for one block of parameters."""

    size: int
    """P_l."""
    positions: int
    """S, at which the block is used; 1 for a gradient that comes multiplied out."""
    factors: int
    """p + q, the numbers of both factors at a position; P_l for a gradient that comes multiplied out."""

    @property
    def kept(self) -> int:
        """Numbers of the shorter form."""
        return min(self.positions * self.factors, self.size)

    @property
    def forward(self) -> int:
        """FLOPs of a forward pass: two a parameter and position. A reverse pass has four."""
        return 2 * self.positions * self.size

    @property
    def product(self) -> int:
        """FLOPs of the product of two gradients, in factors or multiplied out."""
        return min(2 * self.positions**2 * (self.factors + 1), 2 * self.size)


ROUTES = {
    "distilled": "distilled",
    "pntk": "pNTK, in factors",
    "classes": "class kernels",
    "full": "full NTK",
}

COLUMNS = ("gradients", "passes", "FLOPs", "bytes", "stored")


@dataclass(frozen=True)
class Cost:
    """Of having a kernel and a regression with it."""

    gradients: int
    """Jacobian evaluations: ∇_θ of one output at one example, each time it is taken."""
    passes: int
    """Forward and reverse passes, each of one example: one reverse pass a gradient, and one forward an example."""
    flops: float
    """Of gradients, projection, products and factorisations."""
    bytes: int
    """Of the kernel, or of the features of all points, at once."""
    stored: int
    """Of what gradients at a new input are multiplied with: features, or gradients of the data."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Ledger:
    """Costs by route: "distilled", "pntk" (the cheapest exact one), "classes" (O kernels of N) and "full" (N·O)."""

    costs: Mapping[str, Cost]
    counts: Mapping[str, int]
    """N examples, O outputs, P parameters, m points, s combinations, k dimensions."""

    def __getitem__(self, route: str) -> Cost:
        return self.costs[route]

    def saved(self, route: str = "full") -> dict[str, float]:
        """How many times less the distilled route took, of each."""
        other, own = self.costs[route].to_dict(), self.costs["distilled"].to_dict()
        return {name: other[name] / own[name] if own[name] else math.inf for name in own}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {"counts": dict(self.counts), **{name: cost.to_dict() for name, cost in self.costs.items()}}

    def __str__(self) -> str:
        return "\n".join(aligned([("", *COLUMNS), *self.rows()]))

    def rows(self) -> list[tuple[str, ...]]:
        """One a route, as text."""
        return [(ROUTES[name], *cells(cost)) for name, cost in self.costs.items()]


def cells(cost: Cost) -> tuple[str, ...]:
    """A cost as text."""
    return (
        f"{cost.gradients:,}",
        f"{cost.passes:,}",
        f"{cost.flops:.2g}",
        size_text(cost.bytes),
        size_text(cost.stored),
    )


def ledger_from(stored: Mapping[str, Any]) -> Ledger:
    """What `to_dict` gave."""
    return Ledger({name: Cost(**stored[name]) for name in ROUTES}, dict(stored["counts"]))


@dataclass(frozen=True)
class Shapes:
    """What costs follow from; made by `shapes_of`."""

    layers: Sequence[Layer]
    item: int
    """Bytes of a number."""
    products: float
    """Multiplications by which the O gradients of an example become features."""

    def total(self, name: str) -> int:
        """A property of layers, summed over them."""
        return sum(getattr(layer, name) for layer in self.layers)


def shapes_of(J: Linearization, dim: int, kind: str, seed: int) -> Shapes:
    """The shapes of gradients, from those of one example where they may come in factors: O reverse passes of it."""
    own, each = J, outputs_each(J)
    sizes = tuple(math.prod(parameter.shape) for parameter in J.params)
    project = Projection(J.xp, random_matrix(dim, kind, seed, sum(sizes)), sizes, scalar_dtype(J.xp, J.outputs))
    item = item_bytes(J.xp, J.outputs)
    if not hasattr(own, "uses") and not hasattr(own, "sweep_uses"):
        return Shapes([Layer(n, 1, n) for n in sizes], item, project.multiplications_of_rows(each))
    (blocks,) = Images(J, np.eye(each)).sweep([(0, 1)])
    layers = []
    for block, size in zip(blocks, sizes, strict=True):
        if isinstance(block, tuple):
            left, right = block
            looked_up = len(left.shape) < len(right.shape)  # rows of a table, by their numbers
            layers.append(Layer(size, right.shape[2], right.shape[3] + (1 if looked_up else left.shape[3])))
        else:
            layers.append(Layer(size, 1, size))
    return Shapes(layers, item, project.multiplications(blocks))


def ledger(shapes: Shapes, counts: Mapping[str, int], projected: int, gradients: int, passes: int) -> Ledger:
    """The costs of all routes.

    Parameters
    ----------
    shapes
        From `shapes_of`.
    counts : mapping
        "N", "O", "P", "m", "s", "k".
    projected : int
        Gradients that became features, as counted, ...
    gradients, passes : int
        ... and all of them, and all passes, those of the data stage too.
    """
    N, O, P, m, s, k = (counts[name] for name in "NOPmsk")  # noqa: E741
    forward, pair, kept = (shapes.total(name) for name in ("forward", "product", "kept"))
    item = shapes.item
    compression = O * m**2 * k + 9 * m**3 + 2 * m * s * O * k
    regression = O * (s**2 * k + s**3 / 3)
    taken = (2 * N * O + N) * forward
    exact = {"gradients": N * O, "passes": N * (O + 1), "stored": item * N * O * kept}
    costs = {
        "distilled": Cost(
            gradients,
            passes,
            (passes + gradients) * forward + projected / O * 2 * shapes.products + compression + regression,
            bytes=item * m * O * k,
            stored=item * s * O * (k + 1),
        ),
        "pntk": Cost(
            N,
            2 * N,
            3 * N * forward + pair * N**2 / 2 + N**3 / 3,
            bytes=item * N**2,
            stored=item * N * kept,
        ),
        "classes": Cost(**exact, flops=taken + O * (P * N**2 + N**3 / 3), bytes=item * O * N**2),
        "full": Cost(**exact, flops=taken + P * (N * O) ** 2 + (N * O) ** 3 / 3, bytes=item * (N * O) ** 2),
    }
    return Ledger(costs, dict(counts))
