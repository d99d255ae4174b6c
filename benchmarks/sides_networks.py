"""Networks for the map of sides: recurrent states and classifiers' logits with explicit Jacobians, M/P from 0.05 to 20.

Jacobians come from a few lines of NumPy: sensitivities carried forward in time for recurrent states, cotangents carried
back through the layers for classifiers. Inputs are scikit-learn's digits: as a stream of rows, or averaged to 4 × 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Params = dict[str, np.ndarray]
STEPS, RATE = 200, 1e-2
"""Of brief training, by Adam on all of a network's inputs."""

PIXELS, CLASSES = 8, 10
"""Inputs of a step of the recurrent networks, and logits of the classifiers."""


@dataclass(frozen=True)
class Network:
    """A network and its inputs, by their sizes.

    "rnn": all states, (N, T, H), of h ← tanh(W_x x + W_h h + b); N sequences of T rows. "mlp": the logits, (N, 10), of
    two hidden layers of ReLUs.
    """

    kind: str
    width: int
    """H, or the units of each hidden layer."""
    examples: int
    """N."""
    steps: int = 1
    """T; 1 for classifiers."""
    trained: bool = False

    @property
    def name(self) -> str:
        """Such as "rnn H=32 T=41 N=1"."""
        sizes = f"H={self.width} T={self.steps}" if self.kind == "rnn" else f"W={self.width}"
        return f"{self.kind} {sizes} N={self.examples}" + " trained" * self.trained

    @property
    def shape(self) -> tuple[int, int]:
        """(M, P)."""
        outputs = self.width * self.steps if self.kind == "rnn" else CLASSES
        return self.examples * outputs, sum(rows * columns for rows, columns in _weights(self))


def _rnn(*sizes: tuple[int, int, int], trained: bool = False) -> tuple[Network, ...]:
    return tuple(Network("rnn", width, examples, steps, trained) for width, steps, examples in sizes)


def _mlp(*sizes: tuple[int, int], trained: bool = False) -> tuple[Network, ...]:
    return tuple(Network("mlp", width, examples, trained=trained) for width, examples in sizes)


PANELS: dict[str, tuple[Network, ...]] = {
    "RNN states, one sequence": _rnn(
        (64, 4, 1),
        (48, 6, 1),
        (40, 12, 1),
        (48, 25, 1),
        (32, 41, 1),
        (32, 82, 1),
        (20, 145, 1),
        (16, 250, 1),
        (12, 420, 1),
    ),
    "MLP logits": _mlp((72, 36), (56, 48), (40, 68), (36, 110), (24, 126), (21, 208), (12, 245), (8, 298), (6, 428)),
    "RNN, 8 steps": _rnn((32, 8, 5), (20, 8, 18), (16, 8, 31), (12, 8, 52)),
    "After training": (
        *_rnn((40, 12, 1), (32, 41, 1), (20, 145, 1), trained=True),
        *_mlp((40, 68), (12, 245), trained=True),
    ),
}
"""By panel of the figure, with M/P rising for each kind."""

SMALL = {"RNN states, one sequence": _rnn((4, 6, 1)), "After training": _mlp((3, 12), trained=True)}
"""For a run that only shows that all works."""


def jacobian(network: Network) -> tuple[np.ndarray, dict[str, float]]:
    """J (M, P) at its weights, and for trained ones the loss before and after."""
    inputs, targets = data(network)
    params = initial(network)
    if not network.trained:
        return DERIVATIVES[network.kind](params, inputs)[1], {}
    params, losses = trained(network, params, inputs, targets)
    return DERIVATIVES[network.kind](params, inputs)[1], {"loss before": losses[0], "loss after": losses[1]}


def data(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and what training aims at: the next row, or the digit."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    if network.kind == "rnn":
        rows, length = images.reshape(-1, PIXELS), network.steps + 1
        streams = rows[: network.examples * length].reshape(network.examples, length, PIXELS)
        return streams[:, :-1], streams[:, 1:]
    coarse = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return coarse[: network.examples], np.eye(CLASSES)[labels[: network.examples]]


def _weights(network: Network) -> list[tuple[int, int]]:
    """Shapes of the weight matrices that count as parameters; their last rows are the biases."""
    width = network.width
    if network.kind == "rnn":
        return [(PIXELS + width + 1, width)]
    return [(17, width), (width + 1, width), (width + 1, CLASSES)]


def initial(network: Network) -> Params:
    """Weights of variance 1/fan-in, or 2/fan-in before ReLUs; biases 0. A recurrent net also gets a readout."""
    draw = np.random.default_rng(0)
    params = {}
    for number, (rows, columns) in enumerate(_weights(network)):
        parts = (PIXELS, network.width) if network.kind == "rnn" else (rows - 1,)
        gain = 2.0 if network.kind == "mlp" and columns != CLASSES else 1.0
        blocks = [draw.standard_normal((fan, columns)) * np.sqrt(gain / fan) for fan in parts]
        params[f"weight {number}"] = np.concatenate([*blocks, np.zeros((1, columns))])
    if network.kind == "rnn":
        params["readout"] = draw.standard_normal((network.width, PIXELS)) / np.sqrt(network.width)
    return params


# Derivatives ----------------------------------------------------------------------------------------------------------


def states(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States (N, T, H) and their Jacobian (N·T·H, P), by sensitivities ∂h_t/∂θ carried forward in time."""
    weight = params["weight 0"]  # (PIXELS + H + 1, H)
    width = weight.shape[1]
    back, each = weight[PIXELS:-1], np.arange(width)
    state, sensitivity = np.zeros((len(x), width)), np.zeros((len(x), width, weight.size))
    found, slopes = [], []
    for t in range(x.shape[1]):
        seen = np.concatenate([x[:, t], state, np.ones((len(x), 1))], axis=1)
        state = np.tanh(seen @ weight)
        sensitivity = back.T @ sensitivity  # (N, H, P)
        # Of unit j, only column j of the weights acts on it in this step.
        sensitivity.reshape(len(x), width, *weight.shape)[:, each, :, each] += seen
        sensitivity = (1 - state**2)[:, :, None] * sensitivity
        found.append(state)
        slopes.append(sensitivity)
    return np.stack(found, axis=1), np.stack(slopes, axis=1).reshape(-1, weight.size)


def logits(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 10) and their Jacobian (N·10, P), by cotangents carried back through the layers."""
    weights = [params[f"weight {number}"] for number in range(3)]
    one, seen, value = np.ones((len(x), 1)), [], x
    for weight in weights:
        seen.append(np.concatenate([np.maximum(value, 0) if seen else value, one], axis=1))
        value = seen[-1] @ weight
    cotangent = np.broadcast_to(np.eye(CLASSES), (len(x), CLASSES, CLASSES))
    slopes: list[np.ndarray] = []
    for weight, into in zip(reversed(weights), reversed(seen), strict=True):
        slopes.insert(0, np.einsum("ni,noj->noij", into, cotangent).reshape(len(x) * CLASSES, -1))
        cotangent = cotangent @ weight[:-1].T * (into[:, None, :-1] > 0)
    return value, np.concatenate(slopes, axis=1)


DERIVATIVES: dict[str, Callable[[Params, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {"rnn": states, "mlp": logits}


# Training -------------------------------------------------------------------------------------------------------------


def trained(network: Network, params: Params, x: Any, targets: Any) -> tuple[Params, tuple[float, float]]:
    """After a few steps of Adam, and the mean loss before and after."""
    first, second = ({k: np.zeros_like(v) for k, v in params.items()} for _ in range(2))
    before = _slope(network, params, x, targets)[0]
    for step in range(1, STEPS + 1):
        for k, g in _slope(network, params, x, targets)[1].items():
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g**2
            root = np.sqrt(second[k] / (1 - 0.999**step)) + 1e-8
            params = {**params, k: params[k] - RATE * first[k] / (1 - 0.9**step) / root}
    return params, (before, _slope(network, params, x, targets)[0])


def _slope(network: Network, params: Params, x: Any, targets: Any) -> tuple[float, Params]:
    """The mean loss and its gradient, from the Jacobian: squares for recurrent nets, cross-entropy for classifiers."""
    outputs, J = DERIVATIVES[network.kind](params, x)
    slopes = {}
    if network.kind == "rnn":
        miss = (outputs @ params["readout"] - targets) / targets.size
        loss = 0.5 * targets.size * float(np.sum(miss**2))
        slopes["readout"] = np.einsum("nth,ntp->hp", outputs, miss)
        pull = miss @ params["readout"].T
    else:
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        loss = -float(np.mean(np.sum(targets * logs, axis=1)))
        pull = (np.exp(logs) - targets) / len(x)
    gradient, start = pull.ravel() @ J, 0
    for number, shape in enumerate(_weights(network)):
        size = shape[0] * shape[1]
        slopes[f"weight {number}"] = gradient[start : start + size].reshape(shape)
        start += size
    return loss, slopes
