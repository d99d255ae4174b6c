"""A residual network of ten layers in torch, and its training.

As in He et al., section 4.1, at a quarter of the width: a convolution, four stages of one block of two convolutions
each, of widths 32 to 256 and at 16² to 2² positions, mean over positions, linear head. Group norm takes the place of
batch norm, so that examples do not interact.

References: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016. Wu and He, "Group
normalization", ECCV 2018.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

WIDTHS = (32, 64, 128, 256)
GROUPS = 8
CLASSES = 10
BATCH, RATE, DECAY = 50, 2e-3, 0.02
"""Of training by AdamW with one cycle of the learning rate, on cross-entropy."""


class Block(nn.Module):
    """Two convolutions with group norm, beside a shortcut."""

    def __init__(self, p: int, q: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(p, q, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(q, q, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(GROUPS, q), nn.GroupNorm(GROUPS, q)])
        self.shortcut = nn.Identity() if p == q else nn.Conv2d(p, q, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, p, h, w) to (N, q, h / stride, w / stride)."""
        inner = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stage for each width."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.GroupNorm(GROUPS, widths[0]))
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.Sequential(*(Block(p, q, 2 if i else 1) for i, (p, q) in enumerate(pairs)))
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) to (N, 10)."""
        return self.head(self.stages(torch.relu(self.stem(x))).mean((2, 3)))


def trained(images: np.ndarray, labels: np.ndarray, epochs: int, widths: tuple[int, ...] = WIDTHS) -> ResNet:
    """From torch's own initial weights, of seed 0."""
    torch.manual_seed(0)
    model = ResNet(widths)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()
