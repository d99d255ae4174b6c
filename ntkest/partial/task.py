"""What the samplers of partial traces work on, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from ..estimate import FLOOR
from ..estimators import Counted, Problem
from ..linearization import Array, accumulator, scalar_dtype
from ..probes import Centre
from .layout import Layout
from .statistics import Spread, combine, spread_of


@dataclass(frozen=True)
class Task:
    """A kernel, the blocks whose traces are wanted, and the seed of the probes."""

    problem: Problem
    layout: Layout
    seed: int

    @property
    def xp(self) -> Any:
        """The array namespace."""
        return self.problem.xp

    @property
    def kernel(self) -> Counted:
        """The linearization, with its count of passes."""
        return self.problem.kernels[0]

    @property
    def jvp_passes(self) -> int:
        """Passes of a JVP of a probe: one for each part that is wanted, each twice if made of two VJPs."""
        return int(self.kernel.J.passes_per_jvp) * self.problem.groups.count

    @property
    def parts(self) -> list[tuple[int, ...]]:
        """For each part the indices of its parameter blocks; one part of all blocks if no parts are wanted."""
        groups = self.problem.groups
        if not groups.names:
            return [tuple(range(len(self.kernel.J.params)))]
        return [tuple(sorted(groups.blocks(part))) for part in range(groups.count)]

    def window(self) -> int:
        """Probes whose samples (rows, n) fit in a quarter of the memory budget: the rest is for intermediates."""
        item = int(self.xp.finfo(accumulator(self.xp, self.kernel.J.outputs)).bits) // 8
        return max(1, self.problem.memory // (4 * item * self.problem.rows * self.layout.count))

    def gather(self, spread: Spread | None, samples: Array) -> Spread:
        """Take samples (m, parts, n) into the running mean and variance, with the whole before the parts if named."""
        step = self.problem.compiled(spread_of, self.xp, bool(self.problem.groups.names))
        new = Spread(samples.shape[0], *step(samples))
        return new if spread is None else combine(self.problem, spread, new)


@dataclass(frozen=True)
class BlockSquares:
    """Maps images Jv (c, M), centred if asked, to their squared norms by block, (c, n)."""

    xp: ModuleType
    layout: Layout
    centre: Centre | None

    def __call__(self, images: Array) -> Array:
        """A chunk of images."""
        images = images if self.centre is None else self.centre(self.xp, images)
        wide = self.xp.astype(images, scalar_dtype(self.xp, images), copy=False)
        return self.layout.sums(self.xp, wide * wide)


@dataclass(frozen=True)
class Gathered:
    """What a run knows: traces that are exact, and the mean and variance of samples of the rest."""

    known: Array | None = None
    """(rows, n + 1): what is exact; the last column is the sum of the others. None for nothing."""
    spread: Spread | None = None
    """The rest; None for nothing, everything being exact."""
    signed: bool = False
    """Whether samples may be negative, so that their means are not multiples of χ²."""
    floor: float = FLOOR
    """Error bars are at least this many machine epsilons of the value."""


class Sampler(Protocol):
    """One way to sample partial traces. Stateless; what was spent lives in the state that `extend` returns."""

    @property
    def name(self) -> str:
        """As ``method=`` takes it."""
        ...

    @property
    def modes(self) -> frozenset[str]:
        """The AD modes that it needs."""
        ...

    @property
    def first(self) -> int:
        """Samples before the first look at a tolerance."""
        ...

    @property
    def steady(self) -> bool:
        """Whether errors fall like one over the root of the samples, so that few tell how many will be needed."""
        ...

    def passes(self, task: Task, samples: int) -> int:
        """AD passes that `samples` samples cost from scratch."""
        ...

    def growth(self, task: Task, have: int, want: int) -> int:
        """AD passes from `have` to `want` samples."""
        ...

    def extend(self, task: Task, state: Any, have: int, want: int) -> Any:
        """Go on from `have` samples to `want`; `state` is None at first."""
        ...

    def gathered(self, task: Task, state: Any) -> Gathered:
        """Everything known so far."""
        ...


FEWEST = 4
"""The least number of samples that give values and error bars."""
