"""Dense layers met on the way: their inputs, and a place to differentiate at behind each.

The gradient of a dense layer's weight is Σ_s b_s ⊗ a_s over the positions s at which it is applied, with inputs a_s and
cotangents b_s of its outputs. Both come from a pass that stops at the layer's outputs and never makes the product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .flags import grad_mode
from .programs import Point, Program

_MATMULS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


@dataclass(frozen=True)
class Use:
    """One application of a weight to a single example."""

    block: int
    """The index of the weight among the blocks."""
    transposed: bool
    """Whether the weight is (out, in), as `torch.nn.Linear` has it, and not (in, out)."""
    shape: tuple[int, ...]
    """Of what comes out."""

    @property
    def positions(self) -> int:
        """S, the number of vectors that the weight is applied to."""
        return math.prod(self.shape[:-1])


class Taps(TorchFunctionMode):
    """While it is entered, records the inputs of dense layers with `weights`, and adds a tap to what each returns.

    `weights` are indices of blocks by the id of the tensor that stands for the block. Without `taps`, weights are
    detached instead, so that gradients show whether they are used in any other way.
    """

    def __init__(self, weights: Mapping[int, int], taps: Sequence[torch.Tensor] | None = None) -> None:
        super().__init__()
        self._weights, self._taps = weights, taps
        self.uses: list[Use] = []
        self.inputs: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call the function, and note it if it is a dense layer."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.linear:
            x, weight, bias = _linear_arguments(*args, **kwargs)
        elif func in _MATMULS and len(args) == 2:
            (x, weight), bias = args, None
        else:
            return func(*args, **kwargs)
        block = self._weights.get(id(weight))
        if block is None or weight.ndim != 2 or x.ndim < 2:
            return func(*args, **kwargs)
        weight = weight if self._taps is not None else weight.detach()
        outputs = func(x, weight) if bias is None else func(x, weight, bias)
        if not outputs.dtype == x.dtype == weight.dtype:  # under autocast
            return func(*args, **kwargs)
        self.uses.append(Use(block, func is torch.nn.functional.linear, tuple(outputs.shape)))
        self.inputs.append(x)
        return outputs if self._taps is None else outputs + self._taps[len(self.uses) - 1]


def _linear_arguments(input: Any, weight: Any, bias: Any = None) -> tuple[Any, Any, Any]:  # noqa: A002 - torch's name
    return input, weight, bias


def dense_uses(program: Program, point: Point) -> tuple[tuple[int, ...], tuple[Use, ...]]:
    """The shape of the outputs, and the uses, in order, of weights that serve in dense layers only.

    Left out are weights whose gradients are no smaller in factors. `point` has the inputs of a single example. Costs
    its forward, and a reverse pass.
    """
    with grad_mode(True):
        blocks = tuple(block.detach().requires_grad_() for block in point.blocks.values())
        ids = {id(block): index for index, block in enumerate(blocks)}
        with Taps(ids) as taps:
            outputs = program(point.with_blocks(blocks))
        otherwise: Sequence[Any] = [None] * len(blocks)
        if outputs.requires_grad:
            otherwise = torch.autograd.grad(outputs, blocks, torch.ones_like(outputs), allow_unused=True)
    positions = [sum(use.positions for use in taps.uses if use.block == index) for index in range(len(blocks))]

    def serves(index: int) -> bool:
        block = blocks[index]
        return otherwise[index] is None and positions[index] * sum(block.shape) < block.numel()

    return tuple(outputs.shape), tuple(use for use in taps.uses if serves(use.block))
