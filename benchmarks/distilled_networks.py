"""The digits and the two networks of the benchmark of distillation, in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss

from .distilled_settings import BATCH, CLASSES, HELD_OUT, RATE, STUDENT_RATE


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits, pixels from 0 to 1, as a network takes them."""

    images: torch.Tensor
    labels: torch.Tensor
    held_images: torch.Tensor
    held_labels: torch.Tensor


def digits(network: str, seed: int, count: int | None = None) -> Digits:
    """Some of them held out, the same share of every class; `count` limits both, for trials."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    shape = (-1, 64) if network == "MLP" else (-1, 1, 8, 8)
    images = torch.tensor(pixels / 16, dtype=torch.float32).reshape(shape)
    known = torch.tensor(labels)
    sizes = {"test_size": HELD_OUT} if count is None else {"test_size": count, "train_size": count}
    ours, held = train_test_split(np.arange(len(labels)), random_state=seed, stratify=labels, **sizes)
    return Digits(images[ours], known[ours], images[held], known[held])


def fresh(network: str, seed: int) -> torch.nn.Module:
    """At its initialisation by torch."""
    torch.manual_seed(seed)
    if network == "MLP":
        return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, CLASSES))
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(256, CLASSES),
    )


def train(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int) -> None:
    """In place, to classify."""
    steps = _steps(len(images), epochs, seed)
    _descend(model, ((images[batch], labels[batch]) for batch in steps), cross_entropy, RATE, len(steps))


def imitate(model: torch.nn.Module, images: torch.Tensor, aims: torch.Tensor, steps: int) -> None:
    """In place, on all images in each step: aims are labels (m,), or another network's outputs (m, O)."""
    loss = cross_entropy if aims.ndim == 1 else mse_loss
    _descend(model, ((images, aims) for _ in range(steps)), loss, STUDENT_RATE, steps)


def rate_of(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """How many of the images it reads rightly."""
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


def _steps(count: int, epochs: int, seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    orders = [draw.permutation(count) for _ in range(epochs)]
    return [order[start : start + BATCH] for order in orders for start in range(0, count, BATCH)]


def _descend(
    model: torch.nn.Module,
    pairs: Iterator[tuple[torch.Tensor, torch.Tensor]],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    rate: float,
    steps: int,
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for images, aims in pairs:
        optimizer.zero_grad()
        loss(model(images), aims).backward()
        optimizer.step()
        schedule.step()
