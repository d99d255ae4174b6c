"""One table of functions for the NumPy adapter, and a naive Jacobian to hold them against."""

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.builtins import dict as traced_dict
from autograd.scipy.signal import convolve

Layer = namedtuple("Layer", ["weight", "bias"])


@dataclass(frozen=True)
class Case:
    name: str
    function: Any
    params: Any
    inputs: tuple
    kwargs: dict = field(default_factory=dict)
    output: Any = None
    names: tuple = ()
    examples: Any = None
    passes_per_jvp: int = 1

    def __repr__(self):
        return self.name


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def mlp(layers, x):
    for layer in layers[:-1]:
        x = anp.tanh(anp.dot(x, layer.weight) + layer.bias)
    return anp.dot(x, layers[-1].weight) + layers[-1].bias


def convolution(params, x):
    return anp.tanh(convolve(x, params["kernel"], axes=([1, 2], [2, 3]), dot_axes=([3], [1]), mode="valid"))


def patches(params, x):
    windows = anp.stack([x[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)], axis=-1)
    return anp.einsum("nijk,kc->ncij", windows, params["kernel"]) + params["bias"][:, None, None]


def recurrent(params, x, time_first=False):
    state, states = anp.zeros((x.shape[0], params["recurrent"].shape[0])), []
    for t in range(x.shape[1]):
        state = anp.tanh(anp.dot(state, params["recurrent"]) + anp.dot(x[:, t], params["input"]))
        states.append(state)
    return anp.stack(states, axis=0 if time_first else 1)


def time_first(params, x):
    return recurrent(params, anp.swapaxes(x, 0, 1), time_first=True)


def attention(params, x):
    q, k, v = (anp.matmul(x, params[name]) for name in "qkv")
    scores = anp.matmul(q, anp.swapaxes(k, -1, -2)) / np.sqrt(q.shape[-1])
    weights = anp.exp(scores - anp.max(scores, axis=-1, keepdims=True))
    return anp.matmul(weights / anp.sum(weights, axis=-1, keepdims=True), v)


def centred(params, x):
    h = anp.dot(x, params["w"])
    return anp.tanh(h - anp.mean(h, axis=0))


RECURRENT = {"recurrent": 0.4 * draw(3, 3), "input": draw(2, 3)}
CASES = [
    Case(
        "mlp",
        mlp,
        [Layer(draw(4, 5), draw(5)), Layer(draw(5, 2), draw(2))],
        (draw(6, 4),),
        names=("0.weight", "0.bias", "1.weight", "1.bias"),
        examples=(0, 6),
    ),
    Case(
        "conv-without-forward-mode",
        convolution,
        {"kernel": 0.3 * draw(3, 2, 3, 3)},
        (draw(2, 6, 6, 2),),
        names=("kernel",),
        examples=(0, 2),
        passes_per_jvp=2,
    ),
    Case(
        "conv-by-patches",
        patches,
        {"kernel": draw(9, 2), "bias": draw(2)},
        (draw(3, 6, 6),),
        names=("kernel", "bias"),
        examples=(0, 3),
    ),
    Case("trajectories", recurrent, RECURRENT, (draw(4, 5, 2),), names=("recurrent", "input"), examples=(0, 4)),
    Case("trajectories-time-first", time_first, RECURRENT, (draw(5, 4, 2),), names=tuple(RECURRENT), examples=(1, 4)),
    Case("attention", attention, {n: draw(4, 4) for n in "qkv"}, (draw(3, 5, 4),), names=tuple("qkv"), examples=(0, 3)),
    Case("interacting", centred, {"w": draw(3, 2)}, (draw(5, 3),), names=("w",)),
    Case("scalar", lambda w, x: anp.sum(anp.tanh(anp.dot(x, w)) ** 2), draw(3, 2), (draw(5, 3),), names=("params",)),
    Case(
        "numbers",
        lambda p, x: p[0] * x + p[1] ** 2,
        (0.5, np.float64(2.0)),
        (draw(4),),
        names=("0", "1"),
        examples=(0, 4),
    ),
    Case(
        "dict",
        lambda p, x: {"logits": anp.dot(x, p["w"]), "hidden": x},
        {"w": draw(3, 2)},
        (),
        {"x": draw(5, 3)},
        output="logits",
        names=("w",),
        examples=(0, 5),
    ),
    Case(
        "traced-dict-of-two",
        lambda p, x: traced_dict({"a": anp.dot(x, p["w"]), "b": anp.sin(anp.sum(x * p["s"], axis=1))}),
        {"w": draw(3, 2), "s": draw(3)},
        (draw(5, 3),),
        names=("w", "s"),
        examples=(0, 5),
        passes_per_jvp=2,  # autograd has no forward rule for making a dict
    ),
    Case(
        "ignored-parameter",
        lambda p, x: anp.dot(x, p["used"]),
        {"ignored": draw(2, 2), "used": draw(3, 2)},
        (draw(4, 3),),
        names=("ignored", "used"),
        examples=(0, 4),
    ),
    Case(
        "constants-among-parameters",
        lambda p, x: anp.dot(x[:, p["index"]], p["w"]) * p["power"] if p["on"] else None,
        {"index": np.array([2, 0]), "on": True, "power": 3, "w": draw(2, 2), "none": None},
        (draw(4, 3),),
        names=("w",),
        examples=(0, 4),
    ),
]


def naive_jacobian(J, call, step=1e-5):
    """(M, P) by central differences, one entry of one parameter at a time; `call` takes blocks to outputs."""
    blocks = [np.array(p, dtype=np.float64) for p in J.params]
    columns = []
    for block in blocks:
        for index in np.ndindex(block.shape):
            kept = block[index]
            block[index] = kept + step
            above = np.array(call(blocks))
            block[index] = kept - step
            below = np.array(call(blocks))
            block[index] = kept
            columns.append((above - below).ravel() / (2 * step))
    return np.stack(columns, axis=1)
