"""The four kinds of network that every estimator is tried on, smooth and in float64, and a per-step net beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.torch.cases import explicit


class Trajectories(nn.Module):
    """All hidden states (N, T, H) of a recurrent net."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]


class Transformer(nn.Module):
    """Tokens (N, T) to (N, T, 4), by one layer of attention."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True)

    def forward(self, tokens):
        return self.layer(self.embed(tokens))


def mlp():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def convnet():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.AvgPool2d(2, 1), nn.Conv2d(3, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(2, 3)
    )


def per_step():
    """A feed-forward net applied to every step of a sequence."""
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens():
    return torch.randint(7, (2, 4), generator=torch.Generator().manual_seed(3))


@dataclass(frozen=True)
class Net:
    build: Callable[[], nn.Module]
    inputs: Callable[[], torch.Tensor]
    shape: tuple[int, ...]
    """Of the outputs."""
    other: str
    """A net of another architecture on the same output space."""
    few: Any = None
    """params= for so few parameters that columns of J are fewer than rows."""

    def make(self, seed=0, dtype=torch.float64):
        """The module, at parameters of a seed, and its input."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = self.build().to(dtype)
        x = self.inputs()
        return module, x.to(dtype) if x.is_floating_point() else x


NETS = {
    "mlp": Net(mlp, lambda: draw(4, 5), (4, 3), "convnet", few="0.bias"),
    "convnet": Net(convnet, lambda: draw(4, 1, 5, 5, seed=1), (4, 3), "mlp", few=["0.bias", "3.bias"]),
    "gru": Net(Trajectories, lambda: draw(2, 4, 3, seed=2), (2, 4, 4), "per step", few="cell.bias_ih_l0"),
    "transformer": Net(Transformer, tokens, (2, 4, 4), "gru", few=["layer.norm1.*", "layer.linear2.bias"]),
    "per step": Net(per_step, lambda: draw(2, 4, 3, seed=2), (2, 4, 4), "transformer"),
}


@cache
def jacobian(name, seed=0):
    """The explicit Jacobian of a net as NumPy blocks (M, P_l), by parameter."""
    module, x = NETS[name].make(seed)
    return {name: block.numpy() for name, block in explicit(module, (x,)).items()}


def columns(name, keep=lambda parameter: True, seed=0):
    """The columns (M, P) of it for the parameters that are kept."""
    return np.concatenate([block for parameter, block in jacobian(name, seed).items() if keep(parameter)], axis=1)
