"""Adam on a few arrays of any Array API namespace, with a learning rate that falls as a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import array_api_compat

from ...linearization import Array

Arrays = tuple[Array, ...]
State = tuple[Arrays, Arrays, int]
"""Running means of gradients and of their squares, and of how many of them."""


@dataclass(frozen=True)
class Adam:
    """Settings of the optimiser.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1; Loshchilov and Hutter, "SGDR:
    stochastic gradient descent with warm restarts", ICLR 2017, equation 5, for the cosine.
    """

    rate: float
    steps: int
    """After which the cosine is at zero."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def start(self, arrays: Arrays) -> State:
        """Before the first step."""
        zeros = tuple(array_api_compat.array_namespace(a).zeros_like(a) for a in arrays)
        return zeros, zeros, 0

    def step(
        self, arrays: Arrays, gradients: Arrays, state: State, scales: tuple[float, ...], done: int
    ) -> tuple[Arrays, State]:
        """The arrays one step on, by their scales times the rate at most, or little more, after `done` steps in all."""
        (b1, b2), t = self.betas, state[2] + 1
        first = tuple(b1 * m + (1 - b1) * g for m, g in zip(state[0], gradients, strict=True))
        second = tuple(b2 * v + (1 - b2) * g * g for v, g in zip(state[1], gradients, strict=True))
        rate = self.rate * (1 + math.cos(math.pi * done / self.steps)) / 2
        moved = tuple(
            a - rate * scale * (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + self.epsilon)
            for a, m, v, scale in zip(arrays, first, second, scales, strict=True)
        )
        return moved, (first, second, t)
