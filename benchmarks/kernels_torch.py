"""The networks of the benchmark of kernels in torch."""

from __future__ import annotations

import torch
from torch import nn

from .kernels_networks import Given


def network(given: Given) -> nn.Sequential:
    """With the weights that are given."""
    layers: list[nn.Module] = []
    for number, (w, _) in enumerate(given.layers):
        last = number == len(given.layers) - 1
        if w.ndim == 4:
            pool = nn.AvgPool2d(2) if given.layers[number + 1][0].ndim == 4 else nn.AdaptiveAvgPool2d(1)
            layers += [nn.Conv2d(w.shape[1], w.shape[0], 3, padding=1), nn.ReLU(), pool]
            layers += [nn.Flatten()] if isinstance(pool, nn.AdaptiveAvgPool2d) else []
        else:
            layers += [nn.Linear(w.shape[1], w.shape[0])] + ([] if last else [nn.ReLU()])
    module = nn.Sequential(*layers)
    arrays = [torch.tensor(array) for pair in given.layers for array in pair]
    module.load_state_dict(dict(zip(module.state_dict(), arrays, strict=True)))
    return module
