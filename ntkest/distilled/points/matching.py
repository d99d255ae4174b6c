"""What inputs made from features are to match: the features, the statistics of batch norms, and smoothness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat

from ...linearization import Array

View = Callable[[Array], tuple[Array, tuple[Array, ...]]]
"""From inputs (n, …) to features (n, d), and what each batch norm is given, (n, channels, …)."""


class Wanted(NamedTuple):
    """What is to be matched: arrays only, so that a compiled function can take it."""

    atoms: Array
    """(m, d): features, class after class."""
    spread: Array
    """(): the mean squared distance of examples from their atoms, which is what distances are measured in."""
    moments: tuple[tuple[Array, Array], ...]
    """For each batch norm the means and variances (classes, channels) of what examples of each class give it."""


@dataclass(frozen=True)
class Matching:
    """E‖feat(x̃) - b‖²/spread + λ_BN Σ_layers statistics + λ_TV total variation.

    References
    ----------
    Liu et al., "Dataset distillation via the Wasserstein metric", 2023 (arXiv 2311.18531): features at the atoms of a
    barycentre and statistics of each class; Yin et al., "Dreaming to distill", CVPR 2020: statistics, total variation.
    """

    view: View
    norms: float
    variation: float
    axes: tuple[int, int] | None
    """Of the inputs, along which neighbours are alike; None for what is no image."""

    def __call__(self, arrays: tuple[Array], wanted: Wanted) -> Array:
        """Of inputs (m, …), class after class, in one array."""
        (inputs,) = arrays
        xp = array_api_compat.array_namespace(inputs)
        features, normalised = self.view(inputs)
        gap = features - wanted.atoms
        total = xp.mean(xp.sum(gap * gap, axis=1)) / wanted.spread
        if self.norms:
            for given, (mean, variance) in zip(normalised, wanted.moments, strict=True):
                own, spread = moments(xp, given, mean.shape[0])
                total = total + self.norms * (
                    xp.sum((own - mean) ** 2) / xp.sum(variance)
                    + xp.sum((spread - variance) ** 2) / xp.sum(variance * variance)
                )
        if self.variation and self.axes is not None:
            total = total + self.variation * total_variation(xp, inputs, self.axes)
        return total


def moments(xp: ModuleType, given: Array, classes: int) -> tuple[Array, Array]:
    """Means and variances (classes, channels) over the examples of each class, and all positions."""
    channels = given.shape[1]
    apart = xp.reshape(given, (classes, given.shape[0] // classes, channels, -1))
    return xp.mean(apart, axis=(1, 3)), xp.var(apart, axis=(1, 3))


def total_variation(xp: ModuleType, inputs: Array, axes: Sequence[int]) -> Array:
    """The mean absolute difference of neighbours along two axes, added."""
    total: Any = 0.0
    for axis in axes:
        first = xp.moveaxis(inputs, axis, 0)
        total = total + xp.mean(xp.abs(first[1:, ...] - first[:-1, ...]))
    return total


def image_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The axes of rows and columns: (N, H, W, C) if C is less than H and W, else (N, C, H, W); None for no image."""
    if len(shape) != 4:
        return None
    return (1, 2) if shape[3] < min(shape[1:3]) else (2, 3)
