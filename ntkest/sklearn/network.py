"""A fully connected network in NumPy, with its derivatives by hand: what the estimators use when given no network.

The parametrisation is that of the theory: layer l maps h to φ(√2 h W/√n + β b), with n the length of h, φ the rectifier
and weights W and biases b drawn from N(0, 1), so that the kernel has a limit as widths grow; the last layer is linear,
and has neither φ nor √2. Gradients come in factors, an input and a cotangent a layer, so that kernels cost products of
these.

Reference: Jacot, Gabriel, Hongler, "Neural tangent kernel: convergence and generalization in neural networks", NeurIPS
2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import array_api_compat.numpy
import numpy as np

from ..linearization import (
    Blocks,
    ChunkLoop,
    Expand,
    Reduce,
    Tree,
    as_probes,
    as_tangents,
    example_sizes,
    leading,
    map_example_chunks,
)

BIAS = 0.5
"""β, the size of biases beside that of weights."""

CHUNK = 2**22
"""Numbers in the images of one chunk."""

Layer = tuple[np.ndarray, np.ndarray]
"""W (n, n') and b (n',)."""


def draw_layers(sizes: Sequence[int], random: np.random.RandomState) -> list[Layer]:
    """Weights and biases from N(0, 1) for layers between these sizes, inputs first."""
    return [(random.standard_normal(pair), random.standard_normal(pair[1])) for pair in pairwise(sizes)]


class FullyConnected(ChunkLoop):
    """J of the network's outputs (N, O) on inputs (N, d); see `ntkest.linearization.Linearization`."""

    xp = array_api_compat.numpy
    modes = frozenset({"jvp", "vjp"})
    passes_per_jvp = 1
    exponent = 0

    def __init__(self, layers: Sequence[Layer], inputs: np.ndarray) -> None:
        self._layers = tuple(layers)
        self.params = tuple(array for layer in layers for array in layer)
        self.param_names = tuple(f"{i}.{part}" for i in range(len(layers)) for part in ("weight", "bias"))
        self._hidden = [inputs]  # (N, n) into each layer
        self._slopes: list[np.ndarray] = []  # (N, n') of φ behind each but the last
        for (weight, bias), gain in zip(layers, self._gains, strict=True):
            h = gain * self._hidden[-1] @ weight + BIAS * bias
            self._slopes.append(h > 0)
            self._hidden.append(h * self._slopes[-1])
        self.outputs = h
        self.examples = (0, len(inputs))

    @property
    def _gains(self) -> list[float]:
        """√2/√n of each layer, 1/√n of the last."""
        last = len(self._layers) - 1
        return [(1 if i == last else 2**0.5) / len(weight) ** 0.5 for i, (weight, _) in enumerate(self._layers)]

    def at(self, params: Any) -> FullyConnected:
        """The same inputs with other blocks, in the order of `params`."""
        return FullyConnected(list(zip(params[::2], params[1::2], strict=True)), self._hidden[0])

    def jvp(self, tangents: Blocks) -> np.ndarray:
        """Blocks (k, P_l) to (k, M)."""
        blocks = as_tangents(self.xp, self.params, self.param_names, tangents)
        shaped = [v.reshape(-1, *p.shape) for v, p in zip(blocks, self.params, strict=True)]
        moved: Any = 0.0
        for i, ((weight, _), gain) in enumerate(zip(self._layers, self._gains, strict=True)):
            moved = gain * (moved @ weight if i else 0.0) + gain * self._hidden[i] @ shaped[2 * i]
            moved = moved + BIAS * shaped[2 * i + 1][:, None, :]
            if i < len(self._layers) - 1:
                moved = moved * self._slopes[i]
        return np.asarray(moved).reshape(len(moved), -1)

    def vjp(self, cotangents: np.ndarray) -> Blocks:
        """(k, M) to blocks (k, P_l)."""
        images: list[np.ndarray] = []
        for block in self.uses(cotangents, 0, len(self.outputs)):
            if isinstance(block, tuple):
                inputs, pulled = block[0][0, :, 0, :], block[1][:, :, 0, :]
                images.append((inputs.T @ pulled).reshape(len(pulled), -1))
            else:
                images.append(block.sum(axis=1))
        return tuple(images)

    def uses(self, cotangents: np.ndarray, start: int, stop: int) -> tuple[Any, ...]:
        """See `ntkest.linearization.Uses`: of weights the inputs and the cotangents of their layer."""
        omega = as_probes(self.xp, (-1, self.outputs.size), cotangents, "cotangents")
        pulled = omega.reshape(-1, *self.outputs.shape)[:, start:stop]
        found: list[Any] = []
        for i in reversed(range(len(self._layers))):
            if i < len(self._layers) - 1:
                pulled = pulled * self._slopes[i][start:stop]
            inputs = self._gains[i] * self._hidden[i][start:stop]
            found[:0] = [(inputs[None, :, None, :], pulled[:, :, None, :]), BIAS * pulled]
            pulled = self._gains[i] * pulled @ self._layers[i][0].T
        return tuple(found)

    @cached_property
    def example_size(self) -> int:
        """See `ntkest.linearization.ExampleGradients`."""
        return sum(n + 2 * m for n, m in (weight.shape for weight, _ in self._layers))

    def map_example_vjp(
        self, reduce: Reduce, probes: Tree, *, expand: Expand | None = None, chunk: int | None = None
    ) -> Tree:
        """See `ntkest.linearization.ExampleGradients`."""

        def pullback(start: int, stop: int) -> Callable[[np.ndarray], Tree]:
            def pull(cotangents: np.ndarray) -> Tree:
                found = self.uses(cotangents, start, stop)
                count = len(found[1])
                whole = (np.broadcast_to(b[0], (count, *b[0].shape[1:])) if isinstance(b, tuple) else b for b in found)
                return tuple((w, b[1]) if isinstance(b, tuple) else w for w, b in zip(whole, found, strict=True))

            return pull

        sizes = example_sizes(chunk, CHUNK // self.example_size, len(self.outputs), leading(probes))
        return map_example_chunks(self.xp, pullback, reduce, probes, expand, len(self.outputs), sizes)

    def chunk_size(self, mode: str, count: int) -> int:
        """As many probes as make up `CHUNK` numbers in all layers together."""
        return max(1, min(count, CHUNK // (len(self.outputs) * self.example_size)))
