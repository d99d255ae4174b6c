"""The same kernel with fewer parameters: what a weight adds to a layer's outputs, in place of the weight.

A layer that maps inputs A (S, w) to A Wᵀ (S, v) at S < w positions sees no more of a change of its weight than the S·v
numbers A dWᵀ. With A = RᵀQᵀ, where Q (w, S) has orthonormal columns, these are Rᵀu for coordinates u = Qᵀ dWᵀ (S, v);
and inner products of gradients with respect to u are those with respect to W, which have no parts outside of Q. A model
that adds Rᵀu behind the layer, at u = 0, thus has the same outputs and the same J Jᵀ. Its passes are without the
products that gradients and tangents of W take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .errors import out_of_memory
from .flags import grad_mode, transforming
from .layers import Convolution, Dense, direct
from .programs import Named, Point, Program
from .taps import Taps, Use, find_uses


@dataclass(frozen=True)
class Coordinates:
    """Those of a weight: of each of its uses the number, and the columns of R that belong to it."""

    parts: tuple[tuple[int, torch.Tensor], ...]
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Of u."""
        return self.parts[0][1].shape[0], self.width

    def numbered(self, numbers: Mapping[int, int]) -> Coordinates:
        """With other numbers for the uses."""
        return Coordinates(tuple((numbers[number], columns) for number, columns in self.parts), self.width)


class Compact(Program):
    """A program with coordinates for the weights of some layers."""

    def __init__(self, program: Program, point: Point, uses: Sequence[Use], weights: Mapping[str, Coordinates]) -> None:
        self._program, self._point, self._uses, self._weights = program, point, tuple(uses), weights
        self.module, self.autocast = program.module, program.autocast
        self._chosen = tuple(index for index, name in enumerate(point.blocks) if name in weights)

    def point(self) -> Point:
        """Where all coordinates are zero."""
        blocks: Named = {}
        for name, block in self._point.blocks.items():
            own = self._weights.get(name)
            blocks[name] = block if own is None else block.new_zeros(own.shape)
        return replace(self._point, blocks=blocks)

    def within(self, point: Point, run: Callable[[], Any]) -> Any:
        """See `Program.within`; what recomputes has no coordinates, which are zero."""
        return self._program.within(self._whole(point), run)

    def __call__(self, point: Point, replay: bool = True) -> torch.Tensor:
        """See `Program`."""
        blocks = tuple(self._point.blocks.values())
        taps: list[Any] = [None] * len(self._uses)
        for name, own in self._weights.items():
            for number, columns in own.parts:
                use = self._uses[number]
                taps[number] = direct(use.layer).outputs(columns.mT @ point.blocks[name], use.shape)
        with Taps(blocks, self._chosen, taps):
            return self._program(self._whole(point), replay)

    def _whole(self, point: Point) -> Point:
        """With the weights in place of their coordinates."""
        blocks = {n: self._point.blocks[n] if n in self._weights else b for n, b in point.blocks.items()}
        return replace(point, blocks=blocks)


def compacted(program: Program, point: Point) -> Compact | None:
    """None where coordinates would save less than half of the numbers, or layers cannot be seen.

    Costs up to two forwards and a reverse pass, and a QR decomposition for each weight.
    """
    if transforming():
        return None
    try:
        return _compacted(program, point)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        return None


def _compacted(program: Program, point: Point) -> Compact | None:
    point = replace(point, blocks={name: block.detach() for name, block in point.blocks.items()})
    names, blocks = tuple(point.blocks), tuple(point.blocks.values())
    with grad_mode(False), Taps(blocks, range(len(blocks))) as seen:
        program(point)
    found = _worthwhile(blocks, seen.uses, seen.inputs)
    if not _much(blocks, found):
        return None
    _, covered = find_uses(program, point)  # those of blocks that are not used otherwise
    alone = set().union(*(use.blocks for use in covered))
    found = {index: own for index, own in found.items() if index in alone}
    if not _much(blocks, found):
        return None
    kept = [number for number, use in enumerate(seen.uses) if use.only(found).blocks]  # as a call will number them
    weights = {names[i]: own.numbered({old: new for new, old in enumerate(kept)}) for i, own in found.items()}
    return Compact(program, point, [seen.uses[number] for number in kept], weights)


def _worthwhile(
    blocks: Sequence[torch.Tensor], uses: Sequence[Use], inputs: Sequence[torch.Tensor]
) -> dict[int, Coordinates]:
    """Coordinates for weights that serve as a whole, always the same way round, at positions fewer than inputs."""
    found = {}
    for index, block in enumerate(blocks):
        own = [n for n, use in enumerate(uses) if use.weight is not None and use.weight.block == index]
        if not own or len({_left_varies(uses[n]) for n in own}) > 1 or not all(_plain(uses[n]) for n in own):
            continue
        width = block.shape[0] if _left_varies(uses[own[0]]) else block.numel() // block.shape[0]
        if any(direct(uses[n].layer).width(uses[n].shape) != width for n in own):
            continue
        positions, other = sum(uses[n].positions for n in own), block.numel() // width
        if positions * (width + other) >= block.numel():
            continue
        a = [uses[n].layer.prepared(inputs[n].unsqueeze(0)).flatten(0, 2) for n in own]
        if all(part.shape[1] == other and torch.isfinite(part).all() for part in a):
            columns = _triangle(torch.cat(a)).split([part.shape[0] for part in a], dim=1)
            found[index] = Coordinates(tuple(zip(own, columns, strict=True)), width)
    return found


def _plain(use: Use) -> bool:
    """Whether a weight serves from its first row on, in a layer that multiplies inputs with all of it."""
    kind, weight = type(use.layer), use.weight
    return kind in (Dense, Convolution) and use.layer.groups == 1 and weight is not None and weight.start == 0


def _left_varies(use: Use) -> bool:
    """Whether the first axis of the block, as it is stored, is that of the outputs."""
    assert use.weight is not None
    return use.layer.varies[1 if use.weight.flipped else 0]


def _much(blocks: Sequence[torch.Tensor], found: Mapping[int, Coordinates]) -> bool:
    """Whether coordinates save half of all numbers."""
    left = sum(math.prod(found[i].shape) if i in found else block.numel() for i, block in enumerate(blocks))
    return bool(found) and 2 * left <= sum(block.numel() for block in blocks)


def _triangle(inputs: torch.Tensor) -> torch.Tensor:
    """R (r, S) of the transpose of inputs (S, w)."""
    wide = inputs if inputs.dtype == torch.float64 else inputs.float()
    return torch.linalg.qr(wide.mT, mode="r")[1].to(inputs.dtype)
