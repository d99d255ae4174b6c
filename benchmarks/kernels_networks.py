"""The networks of the benchmark of kernels, and the floating-point operations that their kernels take at least.

No framework: weights and inputs are drawn in NumPy and go to every contestant through a file. A network is its weights:
a convolution, 3 × 3 with padding, is followed by ReLU and a mean over 2 × 2 pixels, the last one by ReLU and a mean
over all pixels; a dense layer is followed by ReLU unless it is the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

KINDS = {"pntk": "pNTK", "full": "full NTK", "trace": "exact trace"}


@dataclass(frozen=True)
class Network:
    """Sizes: channels of convolutions on images of `pixels`², where there are any, then widths of dense layers."""

    name: str
    title: str
    examples: int
    widths: tuple[int, ...]
    channels: tuple[int, ...] = ()
    pixels: int = 0
    kinds: tuple[str, ...] = ("pntk", "full")

    @property
    def outputs(self) -> int:
        """O."""
        return self.widths[-1]

    def layers(self) -> list[Layer]:
        """All of them, in order."""
        found, pixels = [], self.pixels
        for p, q in zip(self.channels, self.channels[1:], strict=False):
            found.append(Layer(9 * p, q, pixels**2))
            pixels //= 2
        return found + [Layer(p, q, 1) for p, q in zip(self.widths, self.widths[1:], strict=False)]

    def draw(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Weights (out, in, …) by He, biases that are not zero, and inputs (N, …), all float32."""
        draw = np.random.default_rng(seed)
        shapes = [(q, p, 3, 3) for p, q in zip(self.channels, self.channels[1:], strict=False)]
        shapes += [(q, p) for p, q in zip(self.widths, self.widths[1:], strict=False)]
        arrays = {}
        for number, shape in enumerate(shapes):
            arrays[f"w{number}"] = draw.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
            arrays[f"b{number}"] = 0.1 * draw.standard_normal(shape[0])
        image = (self.channels[0], self.pixels, self.pixels) if self.channels else (self.widths[0],)
        arrays["x"] = draw.standard_normal((self.examples, *image))
        return {name: array.astype(np.float32) for name, array in arrays.items()}


class Layer(NamedTuple):
    """A product of (S, p) by (p, q) for each example; a convolution is one with the patches of its input."""

    p: int
    q: int
    positions: int


class Given(NamedTuple):
    """What a contestant gets: pairs of weights and biases, and the inputs of N examples."""

    layers: list[tuple[np.ndarray, np.ndarray]]
    x: np.ndarray

    @property
    def outputs(self) -> int:
        """O."""
        return len(self.layers[-1][1])


def read(file: Path, examples: int) -> Given:
    """The network in a file, with its first examples."""
    with np.load(file) as arrays:
        count = sum(name.startswith("w") for name in arrays)
        return Given([(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(count)], arrays["x"][:examples])


def floor(network: Network, kind: str, examples: int | None = None) -> int:
    """Multiplications and additions of the products that a kernel cannot do without, each once.

    One forward; a cotangent for each output (for pNTK one) pulled back to the first layer, where that of the last
    dense layer is a row of its weights and takes no product; and for each layer the cheaper of two ways. In factors:
    the Gram matrix of its inputs (N S)² p, that of its cotangents (k N S)² q, and their product entry by entry. By
    rows: rows k N S p q, and their Gram matrix (k N)² p q. Gram matrices are symmetric, and take half of that.
    Biases, elementwise work and what is not a product count nothing.
    """
    n, layers = examples or network.examples, network.layers()
    k = 1 if kind == "pntk" else network.outputs
    forward = sum(2 * n * layer.positions * layer.p * layer.q for layer in layers)
    back = sum(2 * k * n * layer.positions * layer.p * layer.q for layer in layers[1:-1])
    return forward + back + sum(_layer_floor(layer, n, k, last=layer is layers[-1]) for layer in layers)


def _layer_floor(layer: Layer, n: int, k: int, last: bool) -> int:
    p, q, positions = layer
    rows = n * positions
    # the cotangents of the last layer are the same for every example, and those of different outputs orthogonal
    across = 0 if last else (k * rows) ** 2 * (q + 1)
    factored = rows**2 * p + across
    explicit = 2 * k * n * positions * p * q + (k * n) ** 2 * p * q
    return min(factored, explicit)


NETWORKS = {
    network.name: network
    for network in (
        Network("mlp", "MLP 784-1024-1024-10", 256, (784, 1024, 1024, 10)),
        Network("convnet", "ConvNet 3×32×32, widths 32/64/128", 64, (128, 10), (3, 32, 64, 128), 32),
        Network("classifier", "MLP 784-512-512-10", 64, (784, 512, 512, 10), kinds=("trace",)),
    )
}
