"""Gradients of single examples: a VJP that stops before the sum over the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ntkest.linearization import Tree, tree_map

from .errors import out_of_memory
from .flags import differentiable_kernels, grad_mode, transforming
from .programs import Point, Program
from .reverse import Tensors, make_reverse
from .taps import Taps, Use, dense_uses

Pull = Callable[[torch.Tensor], Tree]
"""From cotangents (c, *output shape) of the whole batch to blocks (c, n, P_l), or factors, of a slice of examples."""


class ExampleReverse:
    """J_nᵀ ω_n for slices of examples, by calling the model on single examples.

    All inputs with N entries along the axis of the examples are taken apart along it, which is what `examples` was
    found by. A slice goes through ``torch.func.vmap`` together, with gradients of dense layers in factors; where an
    operation forbids that, each example has a graph of its own.
    """

    def __init__(
        self, program: Program, point: Point, live: bool, examples: tuple[int, int], shape: Sequence[int]
    ) -> None:
        self._program, self._point, self._live = program, point, live
        self._axis, self._count = examples
        self._apart = frozenset(
            name for name, t in point.inputs.items() if t.ndim > self._axis and t.shape[self._axis] == self._count
        )
        self.batches = True
        """Batching over examples works, as far as is known."""
        self._worked = False
        self.possible = True
        """One example alone gives its share of the outputs; if not, its inputs are hidden from us, in a closure say."""
        self._uses: tuple[Use, ...] = ()
        if not transforming():
            wanted = tuple(1 if axis == self._axis else n for axis, n in enumerate(shape))
            try:
                found, self._uses = dense_uses(program, self._alone(0))
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                found = ()
            self.possible = found == wanted
        self._factored = tuple(sorted({use.block for use in self._uses}))

    @property
    def numbers(self) -> int:
        """The size of a gradient as it is made here, in factors or not."""
        blocks = tuple(self._point.blocks.values())
        loose = sum(b.numel() for index, b in enumerate(blocks) if not self.batches or index not in self._factored)
        return (
            loose
            if not self.batches
            else loose + sum(use.positions * sum(blocks[use.block].shape) for use in self._uses)
        )

    def pullback(self, start: int, stop: int, shared: bool = False) -> Pull:
        """The pullback of the examples start … stop-1; `shared` gives factors that no cotangent changes only once."""
        if not self.batches:
            return self._one_by_one(start, stop)
        apart: list[Pull] = []

        def pull(cotangents: torch.Tensor) -> Tree:
            if self.batches:
                try:
                    images = self._together(start, stop, cotangents)
                    if not shared:
                        count = cotangents.shape[0]
                        images = tree_map(lambda a: a.expand(count, *a.shape[1:]), images)
                except (RuntimeError, UserWarning) as error:
                    if self._worked or out_of_memory(error):
                        raise
                    self.batches = False
                else:
                    self._worked = True
                    return images
            if not apart:
                apart.append(self._one_by_one(start, stop))
            return apart[0](cotangents)

        return pull

    def _alone(self, index: int) -> Point:
        """The point with the inputs of one example."""
        own = {name: self._point.inputs[name].narrow(self._axis, index, 1) for name in self._apart}
        return replace(self._point, inputs={**self._point.inputs, **own})

    def _together(self, start: int, stop: int, cotangents: torch.Tensor) -> Tree:
        """One forward of the slice, and a VJP for each example and cotangent."""
        axis, count, n = self._axis, cotangents.shape[0], stop - start
        blocks = tuple(self._point.blocks.values())
        loose = tuple(index for index in range(len(blocks)) if index not in self._factored)
        inputs = {name: self._point.inputs[name].narrow(axis, start, n).movedim(axis, 0) for name in self._apart}
        omega = cotangents.narrow(axis + 1, start, n).movedim(axis + 1, 0)  # (n, c, …)
        weights = {id(blocks[index]): index for index in self._factored}
        taps = tuple(blocks[use.block].new_zeros(use.shape) for use in self._uses)

        def single(own: dict[str, torch.Tensor], probes: torch.Tensor) -> tuple[Tensors, Tensors, Tensors]:
            alone = {**self._point.inputs, **{name: t.unsqueeze(axis) for name, t in own.items()}}
            point = replace(self._point, inputs=alone)

            def run(taps: Tensors, some: Tensors) -> tuple[torch.Tensor, Tensors]:
                given = dict(zip(loose, some, strict=True))
                with Taps(weights, taps) as seen:
                    outputs = self._program(point.with_blocks([given.get(i, b) for i, b in enumerate(blocks)]))
                return outputs, tuple(seen.inputs)

            _, pull, seen = torch.func.vjp(run, taps, tuple(blocks[index] for index in loose), has_aux=True)
            probes = probes.unsqueeze(axis + 1)
            if count == 1:
                behind, images = ([image.unsqueeze(0) for image in part] for part in pull(probes[0]))
            else:
                behind, images = torch.func.vmap(pull)(probes)
            return tuple(behind), tuple(images), seen

        with grad_mode(self._live), differentiable_kernels(), _no_slow_loops():
            behind, images, seen = torch.func.vmap(single, out_dims=(1, 1, 0))(inputs, omega)
        found: dict[int, Any] = {index: image.reshape(count, n, -1) for index, image in zip(loose, images, strict=True)}
        for index in self._factored:
            found[index] = self._factors(index, behind, seen)
        return tuple(found[index] for index in range(len(blocks)))

    def _factors(self, index: int, behind: Tensors, seen: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """The pair (c or 1, n, S, …) of a weight, from cotangents (c, n, …) behind it and inputs (n, …) before it."""
        sides = []
        for use, b, a in zip(self._uses, behind, seen, strict=True):
            if use.block == index:
                b = b.reshape(*b.shape[:2], use.positions, -1)
                a = a.reshape(1, a.shape[0], use.positions, -1)
                sides.append((b, a) if use.transposed else (a, b))
        left, right = (_joined(parts) for parts in zip(*sides, strict=True))
        return left, right

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


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """All positions, for as many cotangents as the part with the most has."""
    count = max(part.shape[0] for part in parts)
    return parts[0] if len(parts) == 1 else torch.cat([part.expand(count, -1, -1, -1) for part in parts], dim=2)


@contextmanager
def _no_slow_loops() -> Iterator[None]:
    """Raise where ``vmap`` warns that it has fallen back to a loop over an operation: ours is faster."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop", category=UserWarning)
        yield
