"""Windows of an input, which a convolution multiplies with its weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def each(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """An option of a convolution for each axis: one number stands for all."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * axes if len(value) == 1 else tuple(value)


def pad_widths(padding: str | int | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """The padding of a convolution as ``torch.nn.functional.pad`` wants it: two numbers an axis, the last axis first.

    Where "same" is odd, the larger half is behind.
    """
    if padding == "same":
        both = [gap * (size - 1) for size, gap in zip(kernel, dilation, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in both]
    else:
        pairs = [(size, size) for size in each(0 if isinstance(padding, str) else padding, len(kernel))]
    return tuple(side for pair in reversed(pairs) for side in pair)


def windows(
    x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], count: Sequence[int]
) -> torch.Tensor:
    """The first `count` windows along each axis of a padded input (n, C, *spatial), as (n, C · ∏ kernel, ∏ count).

    Positions come last, so that whole stretches of a row of the input are copied: several times as fast as the other
    order.
    """
    axes = len(kernel)
    for axis, (size, step, gap, wanted) in enumerate(zip(kernel, stride, dilation, count, strict=True), start=2):
        x = x.unfold(axis, gap * (size - 1) + 1, step).narrow(axis, 0, wanted)[..., ::gap]
    order = (0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
    return x.permute(order).reshape(x.shape[0], x.shape[1] * math.prod(kernel), math.prod(count))
