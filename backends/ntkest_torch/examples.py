"""Gradients of single examples: a VJP that stops before the sum over the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from .errors import out_of_memory
from .flags import differentiable_kernels, grad_mode
from .programs import Point, Program
from .reverse import Tensors, make_reverse

Pull = Callable[[torch.Tensor], Tensors]
"""From cotangents (c, *output shape) of the whole batch to blocks (c, n, P_l) of a slice of its examples."""


class ExampleReverse:
    """J_nᵀ ω_n for slices of examples, by calling the model on single examples.

    All inputs with N entries along the axis of the examples are taken apart along it, which is what `examples` was
    found by. A slice goes through ``torch.func.vmap`` together; where an operation forbids that, and for slices of
    one, each example has a graph of its own.
    """

    def __init__(self, program: Program, point: Point, live: bool, examples: tuple[int, int]) -> None:
        self._program, self._point, self._live = program, point, live
        self._axis, self._count = examples
        self._apart = frozenset(
            name
            for name, t in point.inputs.items()
            if t.ndim > self._axis and t.shape[self._axis] == self._count
        )
        self.batches = True
        """Batching over examples works, as far as is known."""

    def pullback(self, start: int, stop: int) -> Pull:
        """The pullback of the examples start … stop-1."""
        if not self.batches or stop - start == 1:
            return self._one_by_one(start, stop)

        apart: list[Pull] = []

        def pull(cotangents: torch.Tensor) -> Tensors:
            if self.batches:
                try:
                    return self._together(start, stop, cotangents)
                except (RuntimeError, UserWarning) as error:
                    if out_of_memory(error):
                        raise
                    self.batches = False
            if not apart:
                apart.append(self._one_by_one(start, stop))
            return apart[0](cotangents)

        return pull

    def _together(self, start: int, stop: int, cotangents: torch.Tensor) -> Tensors:
        """One forward of the slice, and a VJP for each example and cotangent."""
        axis, count, n = self._axis, cotangents.shape[0], stop - start
        blocks = tuple(self._point.blocks.values())
        inputs = {name: self._point.inputs[name].narrow(axis, start, n).movedim(axis, 0) for name in self._apart}
        omega = cotangents.narrow(axis + 1, start, n).movedim(axis + 1, 0)  # (n, c, …)

        def single(own: dict[str, torch.Tensor], probes: torch.Tensor) -> Tensors:
            alone = {**self._point.inputs, **{name: t.unsqueeze(axis) for name, t in own.items()}}
            point = replace(self._point, inputs=alone)
            _, pull, *_ = torch.func.vjp(lambda *b: self._program(point.with_blocks(b)), *blocks)
            probes = probes.unsqueeze(axis + 1)
            if count == 1:
                return tuple(image.unsqueeze(0) for image in pull(probes[0]))
            return torch.func.vmap(pull)(probes)  # type: ignore[no-any-return]

        with grad_mode(self._live), differentiable_kernels(), _no_slow_loops():
            images: Tensors = torch.func.vmap(single, out_dims=1)(inputs, omega)
        return tuple(image.reshape(count, n, -1) for image in images)

    def _one_by_one(self, start: int, stop: int) -> Pull:
        """A graph for each example, through which all its cotangents go."""
        axis, graphs = self._axis, []
        for index in range(start, stop):
            alone = {name: self._point.inputs[name].narrow(axis, index, 1) for name in self._apart}
            point = replace(self._point, inputs={**self._point.inputs, **alone})
            reverse = make_reverse(self._program, point, self._live)
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


@contextmanager
def _no_slow_loops() -> Iterator[None]:
    """Raise where ``vmap`` warns that it has fallen back to a loop over an operation: ours is faster."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop", category=UserWarning)
        yield
