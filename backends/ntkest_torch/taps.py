"""Layers met on the way: their inputs, and a place to differentiate at behind each.

A pass that stops at the outputs of layers gives their cotangents, of which the gradients of weights and biases are made
without a product of the pass itself; see `layers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .flags import differentiable_kernels, grad_mode
from .layers import Dense, Layer
from .products import linear
from .programs import Point, Program
from .rules import RULES


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a block: rows from `start`, or such rows transposed."""

    block: int
    start: int = 0
    flipped: bool = False


@dataclass(frozen=True)
class Use:
    """One application of a weight, and perhaps a bias, to a single example."""

    layer: Layer
    weight: Place | None
    bias: Place | None
    shape: tuple[int, ...]
    """Of what comes out."""
    positions: int
    """S, the number of terms in the gradient of the weight."""

    @property
    def blocks(self) -> set[int]:
        """Those that it gives gradients of."""
        return {place.block for place in (self.weight, self.bias) if place is not None}

    def only(self, chosen: Iterable[int]) -> Use:
        """The same for some blocks only."""
        weight, bias = (p if p is not None and p.block in chosen else None for p in (self.weight, self.bias))
        return replace(self, weight=weight, bias=bias)


class Taps(TorchFunctionMode):
    """While it is entered, records the inputs of layers that use chosen blocks, and adds a tap to what each returns.

    Without `taps`, the blocks are detached there instead, so that gradients show whether they are used in other ways.
    With `fast`, large dense layers go another way, on which their weights have no derivative.
    """

    def __init__(
        self,
        blocks: Sequence[torch.Tensor],
        chosen: Iterable[int],
        taps: Sequence[torch.Tensor] | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__()
        self._fast = fast
        self._blocks, self._taps = blocks, taps
        self._places = {id(blocks[index]): Place(index) for index in chosen}
        self._views: list[torch.Tensor] = []  # held, so that no other tensor gets the id of one
        self.uses: list[Use] = []
        self.inputs: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call the function, by its rule if it has one."""
        rule = RULES.get(func)
        return func(*args, **(kwargs or {})) if rule is None else rule(self, func, *args, **(kwargs or {}))

    def place(self, tensor: Any) -> Place | None:
        """Where `tensor` lies in the chosen blocks, if it does."""
        return self._places.get(id(tensor))

    def view(self, source: torch.Tensor, found: torch.Tensor) -> None:
        """Note a view of a block, of some of its rows, or of those transposed."""
        place = self._places[id(source)]
        block = self._blocks[place.block]
        flipped = found.ndim == 2 and found.stride() == block.stride()[::-1] and found.shape[0] == block.shape[1]
        rows = found.mT if flipped else found
        if rows.stride() == block.stride() and rows.shape[1:] == block.shape[1:] and found.numel():
            start = (found.storage_offset() - block.storage_offset()) // block.stride()[0]
            self._places[id(found)] = Place(place.block, start, flipped)
            self._views.append(found)

    def call(
        self,
        layer: Callable[[torch.Tensor], tuple[Layer, int]],
        function: Callable[..., torch.Tensor],
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``function(x, weight, bias)`` with a tap behind it; `layer` says from the outputs what it is, and S."""
        if not self.among(weight, bias):
            return function(x, weight, bias)
        outputs = function(x, self.given(weight), self.given(bias))
        if outputs.dtype != weight.dtype or (x.is_floating_point() and x.dtype != weight.dtype):  # under autocast
            return function(x, weight, bias)
        tap = self.open(*layer(outputs), weight, bias, outputs.shape)
        self.inputs.append(x)
        return outputs if tap is None else outputs + tap

    def linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``torch.nn.functional.linear`` with a tap behind it."""
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            return torch.nn.functional.linear(x, weight, bias)
        function = linear if self._fast and self.place(weight) is not None else torch.nn.functional.linear
        return self.call(lambda outputs: (Dense(), math.prod(outputs.shape[:-1])), function, x, weight, bias)

    def among(self, *tensors: torch.Tensor | None) -> bool:
        """Whether any of them lies in a chosen block."""
        return any(self.place(tensor) is not None for tensor in tensors)

    def given(self, tensor: torch.Tensor | None) -> torch.Tensor | None:
        """What a layer gets instead of a tensor: without taps, a chosen one is detached."""
        return tensor.detach() if tensor is not None and self._taps is None and self.among(tensor) else tensor

    def open(self, layer: Layer, positions: int, weight: Any, bias: Any, shape: Sequence[int]) -> torch.Tensor | None:
        """A new use, and its tap if there are taps; whoever opens it appends the inputs."""
        self.uses.append(Use(layer, self.place(weight), self.place(bias), tuple(shape), positions))
        return None if self._taps is None else self._taps[len(self.uses) - 1]


def find_uses(program: Program, point: Point) -> tuple[tuple[int, ...], tuple[Use, ...]]:
    """The shape of the outputs, and the uses, in order, of blocks that serve in layers with a rule only.

    `point` has the inputs of a single example. Costs its forward, and a reverse pass.
    """
    with grad_mode(True), differentiable_kernels():
        blocks = tuple(block.detach().requires_grad_() for block in point.blocks.values())
        with Taps(blocks, range(len(blocks))) as taps:
            outputs = program(point.with_blocks(blocks))
        otherwise: Sequence[Any] = [None] * len(blocks)
        if outputs.requires_grad:
            otherwise = torch.autograd.grad(outputs, blocks, torch.ones_like(outputs), allow_unused=True)
    chosen = {index for index in range(len(blocks)) if otherwise[index] is None}
    uses = (use.only(chosen) for use in taps.uses)
    return tuple(outputs.shape), tuple(use for use in uses if use.blocks)
