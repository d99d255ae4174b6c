"""From the keywords of `ntk` to what is to be computed, and how it is told from everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..linearization import DeviceMismatchError, Linearization, ShapeError, host, scalar_dtype
from ..tangents import Groups, group_parameters
from .fingerprint import difference, fingerprint
from .images import Images, item_bytes, outputs_each
from .reductions import Reduction, reduction
from .tiles import Cost, Plan, Work, roomy

FORMAT = "ntkest-kernel/1"
"""Of what `Question.about` gives, and of stores."""


@dataclass(frozen=True)
class Question:
    """A kernel to be computed."""

    sides: tuple[Images, ...]
    """One for a kernel with itself, or two."""
    wanted: Reduction
    groups: Groups
    dtype: Any

    @property
    def xp(self) -> Any:
        """The namespace of all arrays."""
        return self.sides[0].J.xp

    @property
    def shape(self) -> tuple[int, int]:
        """N, N'."""
        return self.sides[0].count, self.sides[-1].count

    @property
    def each(self) -> int:
        """Rows of the kernel for one example."""
        return len(self.wanted.cotangents) if self.wanted.full else 1

    def cost(self, memory: int) -> Cost:
        """What tiles within `memory` are planned by. Costs the passes of one example, unless there is room for all."""
        item = item_bytes(self.xp, self.xp.empty((0,), dtype=self.dtype))
        example = max(side.most_bytes() for side in self.sides)
        if not roomy(example, max(self.shape), memory):
            example = max(side.example_bytes() for side in self.sides)
        return Cost(example, item * self.each**2, item, self.groups.count)

    def work(self, plan: Plan) -> Work:
        """The computation, in tiles."""
        return Work(self.xp, self.sides, self.wanted, self.groups, plan)

    def about(self) -> dict[str, Any]:
        """What it is the kernel of, as plain data. Costs a pass a side."""
        cotangents = np.ascontiguousarray(self.wanted.cotangents, dtype=np.float64)
        return {
            "format": FORMAT,
            "shape": list(self.shape),
            "symmetric": len(self.sides) == 1,
            "each": self.each,
            "full": self.wanted.full,
            "cotangents": hashlib.sha256(cotangents.data).hexdigest(),
            "names": list(self.groups.names),
            "dtype": str(host(self.xp.zeros((1,), dtype=self.dtype)).dtype),
            "sides": [fingerprint(side.J) for side in self.sides],
        }


def posed(J: Linearization, other: Linearization | None, outputs: Any, by: str | None, seed: int) -> Question:
    """What the keywords ask for.

    Raises
    ------
    InvalidTypeError, InvalidValueError, ShapeError, UnsupportedModeError
    """
    wanted = reduction(outputs, outputs_each(J), seed)
    groups = group_parameters(J.param_names, by)
    others = () if other is None or other is J else (_checked(J, other),)
    sides = tuple(Images(side, wanted.cotangents) for side in (J, *others))
    return Question(sides, wanted, groups, scalar_dtype(J.xp, J.outputs))


REASONS = {
    "symmetric": "it is of one set of examples with itself, or not",
    "shape": "the numbers of examples are others",
    "full": "outputs= was another",
    "cotangents": "outputs= was another",
    "each": "outputs= was another",
    "names": "by= was another, or the parameters have other names",
    "dtype": "it is of another dtype",
}


def mismatch(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Why a kernel that was begun is not the one that is asked for; None if it is."""
    for name, reason in REASONS.items():
        if old[name] != new[name]:
            return reason
    for side, (a, b) in enumerate(zip(old["sides"], new["sides"], strict=True)):
        found = difference(a, b)
        if found is not None:
            return found if side == 0 else f"{found}, on the second side"
    return None


def _checked(J: Linearization, other: Linearization) -> Linearization:
    if outputs_each(other) and J.xp is not other.xp:
        raise DeviceMismatchError(
            f"the linearizations come from different frameworks: {J.xp.__name__} and {other.xp.__name__}"
        )
    if outputs_each(other) != outputs_each(J):
        raise ShapeError(f"examples have {outputs_each(J)} outputs on one side and {outputs_each(other)} on the other")
    mine, theirs = ([tuple(p.shape) for p in side.params] for side in (J, other))
    if mine != theirs:
        raise ShapeError("the two linearizations have different parameters")
    return other
