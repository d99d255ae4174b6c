"""Explicit Jacobians on which estimators are measured: known spectra, and small networks on real digits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
from sklearn.datasets import load_digits

import ntkest
from tests import oracle

SIZE = 120
"""Outputs of the kernels with a known spectrum."""


@dataclass(frozen=True)
class Case:
    """A Jacobian (M, P), another on the same outputs to align it with, and targets (M,)."""

    name: str
    jacobian: np.ndarray
    other: np.ndarray
    targets: np.ndarray

    def truth(self) -> dict[str, float]:
        """The quantities by their definitions."""
        K, L = oracle.kernel(self.jacobian), oracle.kernel(self.other)
        return {
            "trace": float(oracle.trace(K)),
            "frobenius_norm": float(oracle.frobenius_norm(K)),
            "effective_rank": float(oracle.effective_rank(K)),
            "alignment with targets": float(oracle.target_alignment(K, self.targets)),
            "alignment of two kernels": float(oracle.alignment(K, L)),
        }


def cases() -> Iterator[Case]:
    """Six spectra, then four networks."""
    yield from _spectra()
    yield from _networks()


def _spectra() -> Iterator[Case]:
    """Random singular vectors; the other kernel is the first one with a tenth of its size added in noise."""
    for name, values in oracle.spectra(SIZE).items():
        draw = np.random.default_rng(1)
        A = oracle.with_spectrum(values, SIZE, seed=0, P=2 * SIZE)
        noise = draw.standard_normal(A.shape)
        B = A + 0.1 * noise * np.linalg.norm(A) / np.linalg.norm(noise)
        yield Case(name, A, B, draw.standard_normal(SIZE))


def _networks() -> Iterator[Case]:
    """At two random initialisations; the targets are centred one-hot digits, or the next pixels of a recurrent net."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    hot = np.eye(10)[labels] - 0.1
    rows = images.reshape(-1, 8, 8)
    yield _network("mlp", _mlp, {"in": (64, 32), "out": (32, 10)}, images[:12], hot[:12])
    yield _network("convnet", _convnet, {"kernel": (9, 6), "out": (6 * 36, 10)}, rows[:12], hot[:12])
    yield _network("rnn", _rnn, {"in": (8, 8), "back": (8, 8)}, rows[:3, :6], rows[:3, 1:7])
    shapes = {"query": (8, 8), "key": (8, 8), "value": (8, 8), "out": (8, 10)}
    yield _network("attention", _attention, shapes, rows[:12], hot[:12])


def _network(name: str, forward: Callable, shapes: dict, inputs: np.ndarray, targets: np.ndarray) -> Case:
    def jacobian(seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed)
        params = {k: draw.standard_normal(s) * np.sqrt(2 / s[0]) for k, s in shapes.items()}
        J = ntkest.linearize(forward, params, inputs)
        return np.concatenate(J.vjp(np.eye(J.outputs.size)), axis=1)

    return Case(name, jacobian(0), jacobian(1), targets.ravel())


def _mlp(p, x):
    return anp.dot(anp.tanh(anp.dot(x, p["in"])), p["out"])


def _convnet(p, x):
    patches = [x[:, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    hidden = anp.maximum(anp.dot(anp.stack(patches, axis=-1), p["kernel"]), 0)  # (N, 6, 6, 6)
    return anp.dot(anp.reshape(hidden, (len(x), -1)), p["out"])


def _rnn(p, x):
    state, states = anp.zeros((len(x), 8)), []
    for t in range(x.shape[1]):
        state = anp.tanh(anp.dot(x[:, t], p["in"]) + anp.dot(state, p["back"]))
        states.append(state)
    return anp.stack(states, axis=1)  # (N, T, H)


def _attention(p, x):
    query, key, value = (anp.dot(x, p[name]) for name in ("query", "key", "value"))
    scores = anp.exp(anp.einsum("nsh,nth->nst", query, key) / 8**0.5)
    mixed = anp.einsum("nst,nth->nsh", scores / anp.sum(scores, axis=2, keepdims=True), value)
    return anp.dot(anp.mean(mixed, axis=1), p["out"])
