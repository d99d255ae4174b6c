"""Explicit Jacobians of three networks trained on scikit-learn's digits: ``python -m benchmarks.trained FOLDER``.

Each has `benchmarks.operators.SIZE` outputs and float64 parameters, and is written once, to FOLDER/NAME.npy. Needs
autograd and scikit-learn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad
from sklearn.datasets import load_digits

import ntkest

from .operators import NETWORKS, SIZE

Params = dict[str, np.ndarray]
STEPS, BATCH, RATE = 600, 100, 3e-3


@dataclass(frozen=True)
class Network:
    """Logits for training, outputs whose Jacobian is taken, parameter shapes, and the inputs to take it at."""

    logits: Callable[[Params, Any], Any]
    outputs: Callable[[Params, Any], Any]
    shapes: dict[str, tuple[int, ...]]


def write(folder: Path) -> None:
    """Train and differentiate those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8)
    for name in NETWORKS:
        file = folder / f"{name}.npy"
        if file.exists():
            continue
        network = MODELS[name]
        params, accuracy = trained(network, images[:1400], labels[:1400], images[1400:], labels[1400:])
        J = ntkest.linearize(network.outputs, params, images[1400 : 1400 + NETWORKS[name]])
        jacobian = np.concatenate(J.vjp(np.eye(J.outputs.size)), axis=1)
        assert jacobian.shape[0] == SIZE
        part = file.with_suffix(".part.npy")
        np.save(part, jacobian)
        os.replace(part, file)
        print(f"{name}: {accuracy:.1%} of held-out digits, J {jacobian.shape}", file=sys.stderr, flush=True)


def trained(network: Network, x: Any, y: Any, x_test: Any, y_test: Any) -> tuple[Params, float]:
    """Adam on the cross-entropy, from weights of variance 1/fan-in."""
    draw = np.random.default_rng(0)
    params = {k: draw.standard_normal(s) / np.sqrt(s[0] if len(s) > 1 else np.inf) for k, s in network.shapes.items()}
    first, second = ({k: np.zeros_like(v) for k, v in params.items()} for _ in range(2))

    def loss(params: Params, x: Any, hot: Any) -> Any:
        logits = network.logits(params, x)
        top = anp.max(logits, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(logits - top), axis=1)) + top[:, 0] - anp.sum(logits * hot, axis=1))

    slope = grad(loss)
    for step in range(1, STEPS + 1):
        chosen = draw.integers(len(x), size=BATCH)
        for k, g in slope(params, x[chosen], np.eye(10)[y[chosen]]).items():
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g**2
            root = np.sqrt(second[k] / (1 - 0.999**step)) + 1e-8
            params[k] = params[k] - RATE * first[k] / (1 - 0.9**step) / root
    found = np.argmax(network.logits(params, x_test), axis=1)
    return params, float(np.mean(found == y_test))


# The networks ---------------------------------------------------------------------------------------------------------


def _mlp(p: Params, x: Any) -> Any:
    flat = anp.reshape(x, (len(x), 64))
    return anp.dot(anp.tanh(anp.dot(flat, p["in"]) + p["in bias"]), p["out"]) + p["out bias"]


def _convolved(x: Any, kernel: Any, bias: Any, stride: int) -> Any:
    """3 × 3 convolution of (N, H, W, C) without padding, and ReLU."""
    size = (x.shape[1] - 3) // stride + 1
    patches = [
        x[:, i : i + stride * (size - 1) + 1 : stride, j : j + stride * (size - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    return anp.maximum(anp.dot(anp.concatenate(patches, axis=3), kernel) + bias, 0)


def _convnet(p: Params, x: Any) -> Any:
    h = _convolved(x[..., None], p["first"], p["first bias"], 1)  # (N, 6, 6, 8)
    h = _convolved(h, p["second"], p["second bias"], 1)  # (N, 4, 4, 16)
    return anp.dot(anp.reshape(h, (len(x), -1)), p["out"]) + p["out bias"]


def _states(p: Params, x: Any) -> Any:
    """States (N, T, H) of a GRU that reads an image row by row."""
    width = p["out"].shape[0]
    state, states = anp.zeros((x.shape[0], width)), []
    for t in range(x.shape[1]):
        into = anp.dot(x[:, t], p["in"]) + p["bias"]
        back = anp.dot(state, p["back"])
        gates = 1 / (1 + anp.exp(-into[:, : 2 * width] - back[:, : 2 * width]))
        fresh = anp.tanh(into[:, 2 * width :] + gates[:, :width] * back[:, 2 * width :])
        state = gates[:, width:] * state + (1 - gates[:, width:]) * fresh
        states.append(state)
    return anp.stack(states, axis=1)


def _last(p: Params, x: Any) -> Any:
    return anp.dot(_states(p, x)[:, -1], p["out"]) + p["out bias"]


MODELS = {
    "digits-mlp": Network(_mlp, _mlp, {"in": (64, 32), "in bias": (32,), "out": (32, 10), "out bias": (10,)}),
    "digits-convnet": Network(
        _convnet,
        _convnet,
        {
            "first": (9, 8),
            "first bias": (8,),
            "second": (72, 16),
            "second bias": (16,),
            "out": (256, 10),
            "out bias": (10,),
        },
    ),
    "digits-gru": Network(
        _last,
        _states,
        {"in": (8, 30), "back": (10, 30), "bias": (30,), "out": (10, 10), "out bias": (10,)},
    ),
}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
