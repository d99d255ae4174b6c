"""A slice of examples that go through the model together, and gradients of each of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from .assembly import Gradient, Seen
from .errors import out_of_memory
from .flags import differentiable_kernels, grad_mode
from .programs import Point, Program
from .reverse import Tensors
from .taps import Taps, Use

LOOP = 2**17
"""Outputs of layers from which on, on a CPU, cotangents go one after another: a pass is then long enough."""


class Slice:
    """One forward of n examples: each has its own taps, and its own copy of the blocks that no layer covers.

    A pass back through it is an ordinary one, with all examples at once; only the forward is under ``vmap``.

    Parameters
    ----------
    program, point
        The model, with inputs for the whole batch.
    inputs : mapping
        Those of the examples, taken apart along `axis`: the examples are the first axis, `axis` is left out.
    gradients : mapping
        Of the blocks that `uses` cover.
    live : bool
        Whether the results are to be differentiable.
    """

    def __init__(
        self,
        program: Program,
        point: Point,
        inputs: Mapping[str, torch.Tensor],
        axis: int,
        uses: Sequence[Use],
        gradients: Mapping[int, Gradient],
        live: bool,
    ) -> None:
        self._gradients, self._live = gradients, live
        blocks = tuple(point.blocks.values())
        self._sizes = [block.numel() for block in blocks]
        n = next(iter(inputs.values())).shape[0]
        self._loose = tuple(index for index in range(len(blocks)) if index not in gradients)
        of = [blocks[min(use.blocks)] for use in uses]
        taps = tuple(b.new_zeros(()).expand(n, *use.shape) for b, use in zip(of, uses, strict=True))
        copies = tuple(blocks[index].expand(n, *blocks[index].shape) for index in self._loose)

        def single(own: dict[str, torch.Tensor], taps: Tensors, copies: Tensors) -> tuple[torch.Tensor, Tensors]:
            alone = {**point.inputs, **{name: t.unsqueeze(axis) for name, t in own.items()}}
            given = dict(zip(self._loose, copies, strict=True))
            there = replace(point, inputs=alone).with_blocks([given.get(i, b) for i, b in enumerate(blocks)])
            with Taps(blocks, gradients, taps, fast=not live) as seen:
                outputs = program(there)
            return outputs, tuple(seen.inputs)

        with self._running():
            _, self._pull, before = torch.func.vjp(
                lambda *own: torch.func.vmap(single)(dict(inputs), *own), taps, copies, has_aux=True
            )
        self._seen = Seen(uses, before)
        self._long = blocks[0].device.type == "cpu" and n * sum(math.prod(use.shape) for use in uses) > LOOP

    def images(self, cotangents: torch.Tensor, shared: bool) -> tuple[Any, ...]:
        """Blocks (c, n, P_l), or factors, from cotangents (c, n, *outputs of one example)."""
        count = cotangents.shape[0]
        in_factors = {i for i, g in self._gradients.items() if (g.shared_in_factors(count) if shared else g.in_factors)}
        kept = set().union(*(self._gradients[i].uses for i in in_factors))
        rows: dict[int, list[torch.Tensor]] = {i: [] for i in (*self._gradients, *self._loose) if i not in in_factors}
        parts: dict[int, list[torch.Tensor]] = {number: [] for number in kept}
        for behind, images in self._passes(cotangents):
            seen = self._seen.of(dict(enumerate(behind)))
            for index in rows:
                if index in self._gradients:
                    rows[index].append(self._gradients[index].rows(seen))
            for index, image in zip(self._loose, images, strict=True):
                rows[index].append(image.reshape(*image.shape[:2], self._sizes[index]))
            for number in kept:
                parts[number].append(behind[number])
        seen = self._seen.of({number: _together(some) for number, some in parts.items()})
        found: dict[int, Any] = {index: _together(some) for index, some in rows.items()}
        for index in in_factors:
            found[index] = self._gradients[index].factors(seen, shared)
        return tuple(found[index] for index in sorted(found))

    def _passes(self, cotangents: torch.Tensor) -> Iterator[tuple[Tensors, Tensors]]:
        """What comes back to taps and to copies, (c, n, …), for parts of the cotangents."""
        count = cotangents.shape[0]
        if count > 1 and not self._long:
            try:
                with self._running():
                    behind, images = torch.func.vmap(self._pull)(cotangents)
                yield behind, images
                return
            except (RuntimeError, UserWarning) as error:  # an operation whose derivative has no batching rule
                if out_of_memory(error):
                    raise
                self._long = True
        for cotangent in cotangents:
            with self._running():
                found = self._pull(cotangent)
            behind, images = (tuple(t.unsqueeze(0) for t in part) for part in found)
            yield behind, images

    @contextmanager
    def _running(self) -> Iterator[None]:
        with grad_mode(self._live), differentiable_kernels(), _no_slow_loops():
            yield


def _together(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@contextmanager
def _no_slow_loops() -> Iterator[None]:
    """Raise where ``vmap`` warns that it has fallen back to a loop over an operation: ours is faster."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop", category=UserWarning)
        yield
