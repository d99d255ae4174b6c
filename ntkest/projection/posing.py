"""From the keywords of `project` to what is to be computed, which way, and how it is told from everything else.

Costs are counted in multiplications, the same on every machine, so that a call always goes the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels.fingerprint import difference, fingerprint
from ..kernels.images import item_bytes, outputs_each
from ..linearization import Array, InvalidValueError, UnsupportedModeError, host, scalar_dtype
from ..memory import size_text
from ..threads import Range
from .backward import Backward, InRanges, backward
from .blocks import Projection
from .finite import check_features
from .forward import Forward
from .kinds import random_matrix
from .matrices import GROUP, Matrix
from .planning import STORED, Plan
from .sketches import TILE

FORMAT = "ntkest-projection/1"
"""Of what `Question.about` gives, and of stores."""

REUSED = 16
"""How often a pass is taken to use a parameter whose gradients come in rows, which do not tell."""


@dataclass(frozen=True)
class Question:
    """Features to be computed."""

    J: Any
    matrix: Matrix
    kind: str
    source: Backward | Forward

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, O and dim."""
        each = outputs_each(self.J)
        return math.prod(self.J.outputs.shape) // each, each, self.matrix.dim

    @property
    def axis(self) -> int:
        """Along which they come piece by piece: examples in reverse mode, columns of Q in forward mode."""
        return 2 if isinstance(self.source, Forward) else 0

    def plan(self, memory: int, stored: bool) -> Plan:
        """Pieces that fit the budget.

        Raises
        ------
        InvalidValueError
            Not even one example or column fits.
        """
        item, shape = item_bytes(self.J.xp, self.J.xp.empty((0,), dtype=self._dtype)), self.shape
        tile = min(TILE, max(GROUP, memory // (16 * item)))
        need = self.source.bytes_each(self.projection(tile))
        step = min(shape[self.axis], 3 * memory // (4 * need))
        if stored:
            step = min(step, max(1, STORED * shape[self.axis] // (item * math.prod(shape))))
        if self.axis and step > GROUP:
            step -= step % GROUP  # whole groups are drawn
        if step < 1:
            what = "a column of Q" if self.axis else "the gradients of an example"
            enough = size_text(1.02 * (4 * need + 2) / 3)
            raise InvalidValueError(f"memory={memory} bytes do not hold {what}; give memory={enough!r} or more")
        return Plan(shape, self.axis, step, tile)

    def projection(self, tile: int) -> Projection:
        """What becomes of gradients."""
        return projection(self.J, self.matrix, tile)

    def pieces(self, plan: Plan, ranges: Sequence[Range]) -> Iterator[tuple[Range, Array]]:
        """Features of ascending ranges.

        Raises
        ------
        NonFiniteError
        """
        found = self.source.features(self.projection(plan.tile), ranges) if ranges else iter(())
        for span in ranges:
            piece = next(found)
            check_features(self.J.xp, piece, 0 if self.axis else span[0])
            yield span, piece

    def about(self) -> dict[str, Any]:
        """What they are the features of, as plain data. Costs a pass."""
        return {
            "format": FORMAT,
            "shape": list(self.shape),
            "axis": self.axis,
            "kind": self.kind,
            "seed": self.matrix.seed,
            "names": [],
            "dtype": str(host(self.J.xp.zeros((1,), dtype=self._dtype)).dtype),
            "model": fingerprint(self.J),
        }

    @property
    def _dtype(self) -> Any:
        return scalar_dtype(self.J.xp, self.J.outputs)


REASONS = {
    "shape": "the numbers of examples, of outputs or of features are others",
    "kind": "kind= was another",
    "seed": "seed= was another",
    "dtype": "it is of another dtype",
    "axis": "it came by examples and now would by columns, or the other way round",
}


def mismatch(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Why features that were begun are not those that are asked for; None if they are."""
    different = next((reason for name, reason in REASONS.items() if old[name] != new[name]), None)
    return different or difference(old["model"], new["model"])


def posed(J: Any, dim: Any, kind: Any, seed: Any) -> Question:
    """What the keywords ask for, the cheaper way.

    Raises
    ------
    InvalidTypeError, InvalidValueError, UnsupportedModeError
    """
    outputs_each(J)
    matrix = random_matrix(dim, kind, seed, sum(math.prod(param.shape) for param in J.params))
    return Question(J, matrix, kind, _source(J, projection(J, matrix)))


def projection(J: Any, matrix: Matrix, tile: int = TILE) -> Projection:
    """What becomes of gradients of J."""
    sizes = tuple(math.prod(param.shape) for param in J.params)
    return Projection(J.xp, matrix, sizes, scalar_dtype(J.xp, J.outputs), tile)


def _source(J: Any, project: Projection) -> Backward | Forward:
    """By the modes that there are, and if both are, by their costs."""
    reverse = backward(J)
    if "jvp" not in J.modes:
        if reverse is None:
            raise UnsupportedModeError("features need forward or reverse mode, and this linearization has neither")
        return reverse
    if reverse is None or _forward_costs(J, project, reverse) < _backward_costs(J, project, reverse):
        return Forward(J)
    return reverse


def _forward_costs(J: Any, project: Projection, reverse: Backward) -> float:
    """Multiplications of a pass for each column."""
    return float(J.passes_per_jvp) * project.matrix.dim * _pass(J, project, reverse)


def _backward_costs(J: Any, project: Projection, reverse: Backward) -> float:
    """Multiplications of reverse passes, and of what is done to the gradients that they give."""
    if isinstance(reverse, InRanges):
        products = float(J.examples[1]) * project.multiplications(reverse.sample)
    else:
        products = project.multiplications_of_rows(math.prod(J.outputs.shape))
    return products + reverse.passes * _pass(J, project, reverse)


def _pass(J: Any, project: Projection, reverse: Backward) -> float:
    """Of a JVP or VJP of the batch: two products for each use of a parameter."""
    if not isinstance(reverse, InRanges):
        return float(2 * J.examples[1] * REUSED * sum(project.sizes))
    uses = (block[1].shape[2] if isinstance(block, tuple) else REUSED for block in reverse.sample)
    return float(2 * J.examples[1] * sum(count * size for count, size in zip(uses, project.sizes, strict=True)))
