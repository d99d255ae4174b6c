"""The same tanh network in every framework's function form, and its Jacobian by hand in NumPy."""

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise

import array_api_strict
import numpy as np

import ntkest

FRAMEWORKS = {"numpy": "autograd", "torch": "torch", "jax": "jax"}
"""Adapters with a function form, and the module that each needs."""

DENSE = ("dense-numpy", "dense-strict")
"""Explicit Jacobians, in NumPy and in array_api_strict."""


def available():
    """Names of the backends that can be had here; explicit Jacobians always can."""
    found = list(DENSE)
    for name, module in FRAMEWORKS.items():
        if find_spec(module) is not None and getattr(_adapter(name), "backend", None) is not None:
            found.append(name)
    return found


def _adapter(name):
    from importlib import import_module

    return import_module(f"ntkest_{name}")


@dataclass(frozen=True)
class Network:
    """Weights and inputs in NumPy, and what they give by hand."""

    params: list  # of (weight (in, out), bias (out,))
    x: np.ndarray  # (N, in)
    activation: str

    @property
    def names(self):
        return tuple(f"{layer}.{part}" for layer in range(len(self.params)) for part in range(2))

    def outputs(self):
        """f(θ), (N, O)."""
        return self._forward()[0][-1]

    def jacobian(self):
        """(M, P) by backpropagation of one output at a time; rows and columns in the order of the protocol."""
        hidden, slopes = self._forward()
        rows = []
        for n in range(self.x.shape[0]):
            for o in range(hidden[-1].shape[1]):
                delta = np.zeros(hidden[-1].shape[1])
                delta[o] = 1.0
                blocks = []
                for layer in reversed(range(len(self.params))):
                    blocks.append([np.outer(hidden[layer][n], delta).ravel(), delta])
                    if layer:
                        delta = (self.params[layer][0].astype(np.float64) @ delta) * slopes[layer - 1][n]
                rows.append(np.concatenate([part for block in reversed(blocks) for part in block]))
        return np.stack(rows)

    def blocks(self):
        """The columns of the Jacobian as one (M, P_l) a parameter, by name."""
        sizes = [array.size for layer in self.params for array in layer]
        return dict(zip(self.names, np.split(self.jacobian(), np.cumsum(sizes)[:-1], axis=1), strict=True))

    def _forward(self):
        hidden, slopes = [self.x.astype(np.float64)], []
        for index, (weight, bias) in enumerate(self.params):
            h = hidden[-1] @ weight.astype(np.float64) + bias.astype(np.float64)
            if index < len(self.params) - 1:
                h, slope = _ACTIVATIONS[self.activation](h)
                slopes.append(slope)
            hidden.append(h)
        return hidden, slopes


_ACTIVATIONS = {
    "tanh": lambda h: (np.tanh(h), 1 - np.tanh(h) ** 2),
    "sin": lambda h: (np.sin(h), np.cos(h)),
    "relu": lambda h: (np.maximum(h, 0), (h > 0).astype(h.dtype)),
}


def network(sizes=(3, 4, 2), seed=0, activation="tanh", N=5, dtype="float64"):
    """Weights of variance 1/fan-in, biases and inputs of variance 1, from NumPy seeds."""
    rng = np.random.default_rng(seed)
    params = [
        ((rng.standard_normal((a, b)) / np.sqrt(a)).astype(dtype), rng.standard_normal(b).astype(dtype))
        for a, b in pairwise(sizes)
    ]
    return Network(params, rng.standard_normal((N, sizes[0])).astype(dtype), activation)


def mlp(backend, sizes=(3, 4, 2), seed=0, activation="tanh", N=5, dtype="float64"):
    """(J, A): the network as a linearization by `backend`, and its explicit (M, P) Jacobian in NumPy.

    Parameters are a list of (weight (in, out), bias), so blocks are "0.0", "0.1", "1.0", … everywhere. (jax keeps
    float64 only where it is enabled.)
    """
    net = network(sizes, seed, activation, N, dtype)
    return linearized(net, backend), net.jacobian()


def linearized(net, backend, **options):
    """`net` by one of the backends."""
    if backend in DENSE:
        asarray = {"dense-numpy": np.asarray, "dense-strict": array_api_strict.asarray}[backend]
        blocks = {name: asarray(block.astype(net.x.dtype)) for name, block in net.blocks().items()}
        return ntkest.from_jacobian(blocks, net.outputs().shape)
    forward, params, x = functional(net, backend)
    return ntkest.linearize(forward, params, x, **options)


def functional(net, backend):
    """`net` as a function of parameters and inputs, its parameters, and its inputs, of a framework."""
    as_array, activation = _tools(backend, net.activation)

    def forward(params, x):
        for weight, bias in params[:-1]:
            x = activation(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    return forward, [(as_array(weight), as_array(bias)) for weight, bias in net.params], as_array(net.x)


def _tools(backend, activation):
    """How `backend` makes an array of a NumPy one, and its activation."""
    if backend == "numpy":
        import autograd.numpy as anp

        return np.array, {"tanh": anp.tanh, "sin": anp.sin, "relu": lambda h: anp.maximum(h, 0)}[activation]
    if backend == "torch":
        import torch

        return torch.tensor, getattr(torch, activation)
    if backend == "jax":
        import jax
        import jax.numpy as jnp

        return jnp.asarray, {"tanh": jnp.tanh, "sin": jnp.sin, "relu": jax.nn.relu}[activation]
    raise ValueError(f"no backend {backend!r}; there are {', '.join((*DENSE, *FRAMEWORKS))}")
