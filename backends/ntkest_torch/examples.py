"""Gradients of single examples: a VJP that stops before the sum over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ntkest.linearization import Tree

from .assembly import Gradient
from .errors import out_of_memory
from .flags import transforming
from .programs import Point, Program
from .reverse import Tensors, make_reverse
from .slices import Slice
from .taps import Use, find_uses

Pull = Callable[[torch.Tensor], Tree]
"""From cotangents (c, *output shape) of the whole batch to blocks (c, n, P_l), or factors, of a slice of examples."""


class ExampleReverse:
    """J_nᵀ ω_n for slices of examples, by calling the model on single examples.

    All inputs with N entries along the axis of the examples are taken apart along it, which is what `examples` was
    found by. A slice goes through ``torch.func.vmap`` together, and gradients are made of what layers get and give;
    where an operation forbids that, each example has a graph of its own.
    """

    def __init__(
        self, program: Program, point: Point, live: bool, examples: tuple[int, int], shape: Sequence[int]
    ) -> None:
        self._program, self._point, self._live = program, point, live
        self._axis, self._count = examples
        self._apart = frozenset(
            name for name, t in point.inputs.items() if t.ndim > self._axis and t.shape[self._axis] == self._count
        )
        self._blocks = tuple(point.blocks.values())
        self.batches = True
        """Batching over examples works, as far as is known."""
        self._worked = False
        self.possible = True
        """One example alone gives its share of the outputs; if not, its inputs are hidden from us, in a closure say."""
        self._uses: tuple[Use, ...] = ()
        if not transforming():
            wanted = tuple(1 if axis == self._axis else n for axis, n in enumerate(shape))
            try:
                found, self._uses = find_uses(program, self._alone(0))
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                found = ()
            self.possible = found == wanted
        covered = sorted(set().union(*(use.blocks for use in self._uses)))
        self._gradients = {index: Gradient(index, self._blocks[index].shape, self._uses) for index in covered}

    @property
    def numbers(self) -> int:
        """The size of a gradient as it is made here, in factors or not."""
        made = self._gradients if self.batches else {}
        return sum(made[i].numbers if i in made else block.numel() for i, block in enumerate(self._blocks))

    def pullback(self, start: int, stop: int, shared: bool = False) -> Pull:
        """The pullback of the examples start … stop-1, by one forward of them.

        With `shared`, what no cotangent changes is given only once, as `ntkest.linearization.Uses` has it.
        """
        part = self._attempt(lambda: self._slice(start, stop))
        apart: list[Pull] = []

        def pull(cotangents: torch.Tensor) -> Tree:
            if part is not None:
                omega = cotangents.narrow(self._axis + 1, start, stop - start).movedim(self._axis + 1, 1)
                images = self._attempt(lambda: part.images(omega.unsqueeze(self._axis + 2), shared))
                if images is not None:
                    self._worked = True
                    return images
            if not apart:
                apart.append(self._one_by_one(start, stop))
            return apart[0](cotangents)

        return pull

    def _attempt(self, run: Callable[[], Any]) -> Any:
        """``run()``, or None where examples cannot go together."""
        if not self.batches:
            return None
        try:
            return run()
        except (RuntimeError, UserWarning) as error:
            if self._worked or out_of_memory(error):
                raise
            self.batches = False
            return None

    def _alone(self, index: int) -> Point:
        """The point with the inputs of one example."""
        own = {name: self._point.inputs[name].narrow(self._axis, index, 1) for name in self._apart}
        return replace(self._point, inputs={**self._point.inputs, **own})

    def _slice(self, start: int, stop: int) -> Slice:
        axis, point = self._axis, self._point
        own = {name: point.inputs[name].narrow(axis, start, stop - start).movedim(axis, 0) for name in self._apart}
        return Slice(self._program, point, own, axis, self._uses, self._gradients, self._live)

    def _one_by_one(self, start: int, stop: int) -> Pull:
        """A graph for each example, through which all its cotangents go."""
        axis, graphs = self._axis, []
        for index in range(start, stop):
            reverse = make_reverse(self._program, self._alone(index), self._live)
            reverse.away = True
            graphs.append((index, reverse, reverse.graph()))

        def pull(cotangents: torch.Tensor) -> Tensors:
            rows = []
            for index, reverse, graph in graphs:
                own = cotangents.narrow(axis + 1, index, 1)
                images = reverse.within(graph[1], lambda: reverse.passes(graph, own))  # noqa: B023 - called at once
                rows.append([image.reshape(image.shape[0], -1) for image in images])
            return tuple(torch.stack(parts, dim=1) for parts in zip(*rows, strict=True))

        return pull
