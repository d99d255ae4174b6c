"""The ConvNet of the benchmark of regression in torch: its outputs, its training, and J."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import conv2d, linear, relu

import ntkest

from .regression_data import MOMENTUM, RATE, Params, batches


def forward(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = relu(conv2d(x, params["conv0.weight"], params["conv0.bias"], padding=1))
    x = relu(conv2d(x, params["conv1.weight"], params["conv1.bias"], stride=2, padding=1))
    return linear(x.flatten(1), params["readout.weight"], params["readout.bias"])


def train(start: Params, images: np.ndarray, aims: np.ndarray, epochs: int) -> Params:
    params = {name: torch.tensor(array, requires_grad=True) for name, array in start.items()}
    x, y = torch.tensor(images), torch.tensor(aims)
    optimizer = torch.optim.SGD(params.values(), lr=RATE, momentum=MOMENTUM)
    for batch in batches(len(images), epochs):
        optimizer.zero_grad()
        ((forward(params, x[batch]) - y[batch]) ** 2).sum(1).mean().backward()
        optimizer.step()
    return {name: p.detach().numpy() for name, p in params.items()}


def linearization(params: Params, images: np.ndarray) -> Any:
    return ntkest.linearize(forward, {k: torch.tensor(v) for k, v in params.items()}, torch.tensor(images))
