"""Reverse mode: one graph, many passes through it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from ntkest.linearization import NonDifferentiableError

from .errors import out_of_memory
from .flags import differentiable_kernels, grad_mode, transforming
from .programs import Point, Program

Tensors = tuple[torch.Tensor, ...]


class Reverse:
    """Jᵀ ω by ``torch.autograd.grad`` through a graph that is built once and kept.

    With live parameters the graph is built anew for every call, so that ``backward()`` through one
    result does not free what the next one needs.
    """

    def __init__(self, program: Program, point: Point, live: bool) -> None:
        self._program = program
        self._point = point
        self._live = live
        self._kept: tuple[torch.Tensor, Tensors] | None = None
        self._batches = True
        self.away = False
        """Not at the module's own parameters, which a graph that recomputes (checkpointing) would find there."""

    def within(self, blocks: Tensors, run: Callable[[], Any]) -> Any:
        """``run()``, which makes passes through a graph, where recomputing finds `blocks`, the leaves of that graph."""
        return self._program.within(self._point.with_blocks(blocks), run) if self.away else run()

    def graph(self, fresh: bool = False) -> tuple[torch.Tensor, Tensors]:
        """(outputs, blocks) of one forward with grad on; `fresh` asks for one that nobody else holds."""
        if self._kept is not None and not fresh:
            return self._kept
        with grad_mode(True), differentiable_kernels() if self._live else nullcontext():
            blocks = tuple(_leaf(block, self._live) for block in self._point.blocks.values())
            outputs = self._program(self._point.with_blocks(blocks))
        if outputs.is_floating_point() and not outputs.requires_grad:
            raise NonDifferentiableError(
                "the outputs do not depend on the parameters as autograd sees it: all are unused, or the model "
                "detaches them or computes under torch.no_grad(); see output= and params="
            )
        if not self._live and not fresh:
            self._kept = (outputs, blocks)
        return outputs, blocks

    def passes(self, graph: tuple[torch.Tensor, Tensors], cotangents: torch.Tensor) -> Tensors:
        """(c, *output shape) to (c, *parameter shape) for each block, through a graph that `graph` made."""
        count = cotangents.shape[0]
        with grad_mode(True), self._program.autocast.left():
            if count > 1 and self._batches:
                try:
                    return self._pass(graph, cotangents, batched=True)
                except RuntimeError as error:  # an operation without a batching rule, or a sparse gradient
                    if out_of_memory(error):
                        raise
                    self._batches = False
            if count == 1:
                return tuple(g.unsqueeze(0) for g in self._pass(graph, cotangents[0], batched=False))
            rows = [self._pass(graph, cotangent, batched=False) for cotangent in cotangents]
            return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))

    def _pass(self, graph: tuple[torch.Tensor, Tensors], cotangent: torch.Tensor, batched: bool) -> Tensors:
        outputs, blocks = graph
        gradients = torch.autograd.grad(
            outputs,
            blocks,
            cotangent,
            retain_graph=True,
            create_graph=self._live,
            allow_unused=True,
            is_grads_batched=batched,
        )
        batch = cotangent.shape[:1] if batched else ()
        return tuple(
            block.new_zeros((*batch, *block.shape)) if g is None else g.to_dense() if g.is_sparse else g
            for g, block in zip(gradients, blocks, strict=True)
        )


class TransformedReverse(Reverse):
    """Inside a torch.func transform, where only ``torch.func.vjp`` composes."""

    def graph(self, fresh: bool = False) -> tuple[torch.Tensor, Tensors]:
        """No graph is kept: the pullback is made with the pass."""
        blocks = tuple(self._point.blocks.values())
        return self._program(self._point), blocks

    def passes(self, graph: tuple[torch.Tensor, Tensors], cotangents: torch.Tensor) -> Tensors:
        """See `Reverse.passes`."""
        with differentiable_kernels():  # a transform around this one may ask for second derivatives
            _, pull, *_ = torch.func.vjp(lambda *blocks: self._program(self._point.with_blocks(blocks)), *graph[1])
            images: Tensors = torch.func.vmap(pull)(cotangents)
        return images


def make_reverse(program: Program, point: Point, live: bool) -> Reverse:
    """The reverse mode that works here."""
    return (TransformedReverse if transforming() else Reverse)(program, point, live)


def _leaf(block: torch.Tensor, live: bool) -> torch.Tensor:
    """An alias to differentiate to: attached to the user's tensor if live, so that gradients go on to it.

    An alias, because the same tensor may stand at two places of a pytree, and each is its own block.
    """
    if live and block.requires_grad:
        return block.view_as(block)
    return block.detach().requires_grad_()


def walk(outputs: torch.Tensor) -> list[str]:
    """Names of all nodes in the graph below `outputs`, sorted."""
    kinds, seen, stack = [], set(), [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kinds.append(node.name())
        stack.extend(parent for parent, _ in node.next_functions)
    return sorted(kinds)
