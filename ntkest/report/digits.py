"""The demo's network and data: handwritten digits, and gradient descent through `J.vjp`.

The network is written with operators alone (``@``, ``+``, ``*``, ``/``, ``**``), so it needs no framework's functions
and would run on the arrays of any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..linearization import Linearization, linearize

WIDTH = 64
"""Hidden units."""

STEPS = 60
"""Steps of gradient descent on the whole training set."""

RATE, MOMENTUM = 0.5, 0.9

Params = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Digits:
    """Images (N, 64) with pixels from -1 to 1, and labels (N,), for training and held out."""

    train_images: np.ndarray
    train_labels: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def load_digits(seed: int) -> Digits:
    """scikit-learn's 1797 digits of 8 × 8 pixels, shuffled; a fifth of them is held out."""
    from sklearn.datasets import load_digits as load

    raw = load()
    order = np.random.default_rng([seed, 0]).permutation(raw.target.size)
    images, labels = raw.data[order] / 8.0 - 1.0, raw.target[order].astype(np.int64)
    held_out = raw.target.size // 5
    return Digits(images[held_out:], labels[held_out:], images[:held_out], labels[:held_out])


def initial(seed: int) -> Params:
    """Weights of variance 1/fan-in, and no biases."""
    rng = np.random.default_rng([seed, 1])
    return {
        name: {"weight": rng.standard_normal((a, b)) / np.sqrt(a), "bias": np.zeros(b)}
        for name, a, b in (("hidden", 64, WIDTH), ("head", WIDTH, 10))
    }


def network(params: Any, images: Any) -> Any:
    """Logits (N, 10) of a hidden layer with the activation h/√(1 + h²), a sigmoid without special functions."""
    h = images @ params["hidden"]["weight"] + params["hidden"]["bias"]
    h = h / (1 + h * h) ** 0.5
    return h @ params["head"]["weight"] + params["head"]["bias"]


def train(J: Linearization, labels: np.ndarray, params: Params, steps: int = STEPS) -> Iterator[Params]:
    """Parameters after each step of gradient descent with momentum on the cross-entropy of `labels`.

    The gradient with respect to the logits is softmax minus one-hot, over N; `J.vjp` pulls it back to the
    parameters. Costs a forward pass, a trace and a VJP a step.
    """
    hot = np.eye(J.outputs.shape[-1])[labels]
    velocity = {name: np.zeros(p.shape) for name, p in zip(J.param_names, J.params, strict=True)}
    for _ in range(steps):
        J = J.at(params)
        residual = (_softmax(J.outputs) - hot) / labels.size
        for name, gradient in zip(J.param_names, J.vjp(residual.reshape(1, -1)), strict=True):
            velocity[name] = MOMENTUM * velocity[name] - RATE * gradient.reshape(velocity[name].shape)
        params = {
            layer: {part: values + velocity[f"{layer}.{part}"] for part, values in parts.items()}
            for layer, parts in params.items()
        }
        yield params


def accuracy(params: Params, images: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of images whose largest logit is that of their label."""
    return float(np.mean(np.argmax(network(params, images), axis=-1) == labels))


def linearized(params: Params, images: np.ndarray) -> Linearization:
    """J of the network's logits."""
    return linearize(network, params, images)


def _softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return np.asarray(grown / np.sum(grown, axis=-1, keepdims=True))
