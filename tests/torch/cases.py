"""One table of layers and models with inputs; every test that should hold for all of them runs over it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    examples: tuple[int, int] | None
    options: dict[str, Any] = field(default_factory=dict)
    train: bool = False

    def make(self, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, tuple[Any, ...]]:
        """The module and its inputs, from a fixed seed."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            module = self.build().to(dtype).train(self.train)
            inputs = tuple(x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x for x in self.inputs())
        return module, inputs


class Attention(nn.Module):
    """Scaled-dot-product attention over the second axis, or over the batch itself."""

    def __init__(self, within_batch: bool = False) -> None:
        super().__init__()
        self.within_batch = within_batch
        self.qkv = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.qkv(x[None] if self.within_batch else x).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return mixed[0] if self.within_batch else mixed


class MultiheadAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Partial(nn.Module):
    """A frozen layer, a trained layer, and one that the output ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.used = nn.Linear(3, 2)
        self.unused = nn.Linear(3, 2)

    def forward(self, x):
        return self.used(torch.tanh(self.frozen(x)))


class Block(nn.Module):
    """A residual block with batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))


def settled(norm: nn.Module, *shape: int) -> nn.Module:
    """A norm layer with running statistics and affine parameters that are not trivial."""
    norm(torch.randn(*shape) * 2 + 1)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.3)
    return norm


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        settled(nn.BatchNorm2d(4), 5, 4, 6, 6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        Block(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def randn(*shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randn(*shape),)


def tokens(high: int, *shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randint(high, shape),)


def twice(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Tanh(), layer)


FIRST = {"output": 0}

CASES = [
    Case("linear", lambda: nn.Linear(3, 4), randn(5, 3), (0, 5)),
    Case("mlp", lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)), randn(5, 3), (0, 5)),
    Case(
        "inplace relu",
        lambda: nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)),
        randn(4, 3),
        (0, 4),
    ),
    Case("inplace on the input", lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), randn(4, 3), (0, 4)),
    Case("conv1d dilated", lambda: nn.Conv1d(2, 3, 3, dilation=2, padding=2), randn(3, 2, 6), (0, 3)),
    Case("conv2d", lambda: nn.Conv2d(2, 3, 3), randn(2, 2, 5, 5), (0, 2)),
    Case("conv2d grouped", lambda: nn.Conv2d(4, 4, 3, groups=2), randn(2, 4, 4, 4), (0, 2)),
    Case("conv3d", lambda: nn.Conv3d(1, 2, 2), randn(2, 1, 3, 3, 3), (0, 2)),
    Case("conv1d transposed", lambda: nn.ConvTranspose1d(2, 2, 3, stride=2), randn(2, 2, 4), (0, 2)),
    Case("conv2d transposed", lambda: nn.ConvTranspose2d(2, 2, 2, stride=2), randn(2, 2, 3, 3), (0, 2)),
    Case("conv3d transposed", lambda: nn.ConvTranspose3d(1, 1, 2), randn(2, 1, 2, 2, 2), (0, 2)),
    Case("rnn", lambda: nn.RNN(3, 4), randn(5, 2, 3), (1, 2), FIRST),
    Case("rnn batch first", lambda: nn.RNN(3, 4, batch_first=True), randn(2, 5, 3), (0, 2), FIRST),
    Case("gru", lambda: nn.GRU(3, 4), randn(5, 2, 3), (1, 2), FIRST),
    Case("gru batch first", lambda: nn.GRU(3, 4, batch_first=True), randn(2, 5, 3), (0, 2), FIRST),
    Case("gru square", lambda: nn.GRU(3, 2), randn(4, 4, 3), (1, 4), FIRST),
    Case("lstm", lambda: nn.LSTM(3, 4), randn(5, 2, 3), (1, 2), FIRST),
    Case("lstm batch first", lambda: nn.LSTM(3, 4, batch_first=True), randn(2, 5, 3), (0, 2), FIRST),
    Case(
        "lstm two-way",
        lambda: nn.LSTM(2, 2, num_layers=2, bidirectional=True, batch_first=True),
        randn(2, 4, 2),
        (0, 2),
        FIRST,
    ),
    Case("multihead attention", MultiheadAttention, randn(3, 4, 4), (0, 3)),
    Case(
        "transformer layer",
        lambda: nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True),
        randn(2, 3, 4),
        (0, 2),
    ),
    Case("sdpa", Attention, randn(3, 4, 4), (0, 3)),
    Case("sdpa within the batch", lambda: Attention(within_batch=True), randn(4, 4), None),
    Case("batch norm", lambda: settled(nn.BatchNorm1d(3), 9, 3), randn(4, 3), (0, 4)),
    Case("batch norm training", lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), randn(4, 3), None, {}, True),
    Case("layer norm", lambda: settled(nn.LayerNorm(4), 3, 4), randn(3, 4), (0, 3)),
    Case("group norm", lambda: settled(nn.GroupNorm(2, 4), 3, 4), randn(3, 4, 2), (0, 3)),
    Case("rms norm", lambda: settled(nn.RMSNorm(4), 3, 4), randn(3, 4), (0, 3)),
    Case("embedding", lambda: nn.Embedding(6, 3), tokens(6, 4, 2), (0, 4)),
    Case("embedding sparse", lambda: nn.Embedding(6, 3, sparse=True), tokens(6, 4, 2), (0, 4)),
    Case("embedding padded", lambda: nn.Embedding(6, 3, padding_idx=-2), tokens(6, 4, 3), (0, 4)),
    Case(
        "pooling",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(1)),
        randn(3, 1, 4, 4),
        (0, 3),
    ),
    Case("dropout", lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)), randn(4, 3), (0, 4)),
    Case("tied", Tied, randn(4, 3), (0, 4)),
    Case("layer registered twice", lambda: twice(nn.Linear(3, 3)), randn(4, 3), (0, 4)),
    Case("frozen and unused", Partial, randn(4, 3), (0, 4)),
    Case("resnet", resnet, randn(2, 3, 6, 6), (0, 2)),
]


def explicit(module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> dict[str, torch.Tensor]:
    """The Jacobian, (M, P_l) for each trainable parameter, from one gradient an output of the plain call."""
    module = copy.deepcopy(module)
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    result = module(*(x.clone() if torch.is_tensor(x) else x for x in inputs))
    outputs = (result if output is None else result[output]).reshape(-1)
    rows = [torch.autograd.grad(y, list(parameters.values()), retain_graph=True, allow_unused=True) for y in outputs]
    return {
        name: torch.stack(
            [torch.zeros_like(p).reshape(-1) if row[i] is None else row[i].to_dense().reshape(-1) for row in rows]
        )
        for i, (name, p) in enumerate(parameters.items())
    }
