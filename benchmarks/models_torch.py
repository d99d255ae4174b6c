"""The models in torch: a module, its input, and how to pick the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from .cases import CONVNET, GRU, MLP


class Model(NamedTuple):
    module: nn.Module
    x: torch.Tensor
    output: int | None = None
    """What of a tuple of results is differentiated."""

    def __call__(self, params: dict[str, torch.Tensor]) -> torch.Tensor:
        """The outputs at `params`."""
        raw: Any = torch.func.functional_call(self.module, params, (self.x,))
        return raw if self.output is None else raw[self.output]


def mlp() -> Model:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in zip(MLP.widths, MLP.widths[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return Model(nn.Sequential(*layers[:-1]), torch.randn(MLP.batch, MLP.widths[0]))


def convnet() -> Model:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in CONVNET.layers:
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
    head = nn.Linear(CONVNET.layers[-1][1], CONVNET.classes)
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return Model(module, torch.randn(CONVNET.batch, 3, CONVNET.size, CONVNET.size))


def gru() -> Model:
    torch.manual_seed(0)
    module = nn.GRU(GRU.inputs, GRU.hidden, batch_first=True)
    return Model(module, torch.randn(GRU.batch, GRU.steps, GRU.inputs), output=0)


MODELS: dict[str, Callable[[], Model]] = {"mlp": mlp, "convnet": convnet, "gru": gru}
