"""Gradients of a convolution's weight for each example, by a convolution itself: its examples side by side as groups.

On a CPU oneDNN does that in its own layout, and several times as fast as a product with patches, which are written out
first and are ∏ kernel times as large as the inputs. For thin layers, and where the gradients are larger than both
factors, the product is the faster one.
"""

from __future__ import annotations

import math

import torch

from .layers import Convolution
from .products import fast

THIN = 16
"""Channels in a group below which products with patches are as fast."""

_WEIGHTS = {1: torch.nn.grad.conv1d_weight, 2: torch.nn.grad.conv2d_weight, 3: torch.nn.grad.conv3d_weight}


def pays(layer: Convolution, a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether it is faster than products with patches, for inputs a and cotangents b."""
    thinner = min(side.shape[-len(layer.kernel) - 1] for side in (a, b))
    return thinner // layer.groups >= THIN and fast(a, b)


def in_groups(layer: Convolution, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Gradients (c, n, P) from inputs a (n, …, in, *space) and cotangents b (c, n, …, out, *places)."""
    axes, groups = len(layer.kernel), layer.groups
    out, channels = b.shape[-axes - 1], a.shape[-axes - 1]
    count, n = b.shape[:2]
    a = a.reshape(n, -1, channels, *a.shape[-axes:]).transpose(0, 1).flatten(1, 2)
    b = b.reshape(count, n, -1, groups, out // groups, *b.shape[-axes:]).permute(2, 1, 3, 0, *range(4, axes + 5))
    pairs = list(zip(layer.padding[::2], layer.padding[1::2], strict=True))[::-1]
    if any(before != behind for before, behind in pairs):
        a, pairs = torch.nn.functional.pad(a, layer.padding), [(0, 0)] * axes
    found = _WEIGHTS[axes](
        a,
        (n * count * out, channels // groups, *layer.kernel),
        b.flatten(1, 4),
        stride=layer.stride,
        padding=tuple(width for width, _ in pairs),
        dilation=layer.dilation,
        groups=n * groups,
    )
    rows = found.reshape(n, groups, count, out // groups * (channels // groups) * math.prod(layer.kernel))
    return rows.permute(2, 0, 1, 3).flatten(2)
