"""What both frameworks share in the benchmark of regression: digits, first weights, and the order of batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

CHANNELS = (1, 16, 32)
"""Of the images and the two 3 × 3 convolutions, the second with stride 2, so that 4 × 4 positions are left."""

CLASSES = 10
TRAIN = 1440
"""Of 1,797 images; the other 357 are held out."""

EPOCHS, BATCH, RATE, MOMENTUM = 30, 32, 0.005, 0.9
"""Of training by gradient descent on squared errors, averaged over a batch and summed over the outputs."""

Params = dict[str, np.ndarray]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits (1797, 1, 8, 8), pixels from -1 to 1, shuffled, and labels (1797,)."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = np.random.default_rng(0).permutation(len(raw.target))
    images = (raw.images[order] / 8 - 1).astype(np.float32)[:, None]
    return images, raw.target[order]


def targets(labels: np.ndarray) -> np.ndarray:
    """Centred one-hot rows."""
    return (np.eye(CLASSES)[labels] - 1 / CLASSES).astype(np.float32)


def initial(channels: tuple[int, ...] = CHANNELS, seed: int = 0) -> Params:
    """Weights of variance 2/fan-in, of the readout 1/fan-in, and no biases."""
    draw, params = np.random.default_rng([seed, 1]), {}
    for i, (inputs, outputs) in enumerate(pairwise(channels)):
        params[f"conv{i}.weight"] = draw.standard_normal((outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        params[f"conv{i}.bias"] = np.zeros(outputs)
    size = 16 * channels[-1]
    params["readout.weight"] = draw.standard_normal((CLASSES, size)) / np.sqrt(size)
    params["readout.bias"] = np.zeros(CLASSES)
    return {name: array.astype(np.float32) for name, array in params.items()}


def batches(count: int, epochs: int = EPOCHS) -> Iterator[np.ndarray]:
    """Indices of the training images, batch after batch."""
    draw = np.random.default_rng(2)
    for _ in range(epochs):
        order = draw.permutation(count)
        yield from (order[start : start + BATCH] for start in range(0, count, BATCH))
