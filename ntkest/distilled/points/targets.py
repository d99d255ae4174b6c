"""The examples that new points are to stand for, in batches, with their gradients where memory has room for them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...kernels.images import Images, outputs_each
from ...linearization import Array, accumulator
from .exact import gradients, square_norms
from .objectives import Seen
from .problem import Problem


class Targets:
    """Batches of equal size of some of a problem's examples, in an order that is drawn once.

    Parameters
    ----------
    problem : Problem
    examples : array (n,)
        Which of its examples.
    batch : int
        Examples in a batch; those that are left over when the last one is full are left out.
    memory : int
        Bytes for gradients. Where all of them fit they are kept, else they are computed each time.
    """

    def __init__(self, problem: Problem, examples: np.ndarray, batch: int, memory: int) -> None:
        self._problem = problem
        batch = min(batch, len(examples))
        order = np.random.default_rng([problem.seed, 1]).permutation(examples)[: len(examples) // batch * batch]
        self.batches: list[np.ndarray] = list(np.sort(np.reshape(order, (-1, batch)), axis=1))
        self.gradients = self.passes = 0
        """What was computed so far; see `Points`."""
        self._kept: dict[int, Seen] = {}
        self._outputs: list[Array] = []
        self._squares: list[Array] = []
        xp = problem.xp
        for indices in self.batches:
            self.J = J = problem.linearize(problem.at(indices), check=not self._outputs)
            self._outputs.append(xp.reshape(J.outputs, (batch, -1)))
            self._squares.append(square_norms(J))
            self.each = outputs_each(J)
            self._count(batch)
        bytes_each = Images(J, np.eye(self.each)).example_bytes()
        self._keeps = bytes_each * len(order) <= memory
        wide = accumulator(xp, self._squares[0])
        squares, outputs = (xp.astype(xp.concat(p, axis=0), wide) for p in (self._squares, self._outputs))
        self._whole = xp.stack([xp.mean(squares), xp.mean(outputs * outputs) * self.each])

    def __len__(self) -> int:
        return len(self.batches)

    def seen(self, i: int) -> Seen:
        """The batch i."""
        if i in self._kept:
            return self._kept[i]
        indices = self.batches[i]
        J = self._problem.linearize(self._problem.at(indices), check=False)
        self._count(len(indices))
        found = Seen(gradients(J), self._outputs[i], self._squares[i], self._whole)
        if self._keeps:
            self._kept[i] = found
        return found

    def all(self) -> Iterator[Seen]:
        """All batches."""
        return (self.seen(i) for i in range(len(self)))

    def order(self, steps: int) -> list[int]:
        """Which batch each step looks at: all of them in turn, shuffled anew each time."""
        draw = np.random.default_rng([self._problem.seed, 2])
        rounds = [draw.permutation(len(self)) for _ in range(math.ceil(steps / len(self)))]
        return [int(i) for i in np.concatenate(rounds)[:steps]] if rounds else []

    def _count(self, examples: int) -> None:
        self.gradients += self.each * examples
        self.passes += (self.each + 1) * examples
