"""XLA compilations in training: ``python -m benchmarks.compilations``. Prints counts, one a step, as JSON."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp

import ntkest

STEPS = 20
PROBES = 8
RATE = 1e-3


def main() -> None:
    """Both kinds of training."""
    print(json.dumps({"jitted": jitted(), "eager": eager()}))


def jitted() -> list[int]:
    """Steps on loss + trace/M in one jitted function, which takes new probes in every step."""
    params, x, y = data(0)
    J = ntkest.linearize(network, params, x)
    drawn = [ntkest.draw_probes(J, PROBES, seed=step) for step in range(STEPS)]

    def loss(params: Any, x: Any, y: Any, probes: Any) -> Any:
        trace = ntkest.trace(ntkest.linearize(network, params, x), method="reverse", probes=probes)
        return jnp.mean((network(params, x) - y) ** 2) + 1e-3 * trace.value / y.size

    @jax.jit
    def step(params: Any, x: Any, y: Any, probes: Any) -> Any:
        return jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss)(params, x, y, probes))

    batches = [data(number)[1:] for number in range(STEPS)]
    seen, counts = Compilations(), []
    for (x, y), probes in zip(batches, drawn, strict=True):
        params = jax.block_until_ready(step(params, x, y, probes))
        counts.append(seen.count())
    return counts


def eager() -> list[int]:
    """Steps outside `jit`: a fresh closure is linearized at new parameters on a new batch, with a new seed."""
    params, _, _ = data(0)
    batches = [data(number)[1:] for number in range(STEPS)]
    seen, counts = Compilations(), []
    for number, (x, y) in enumerate(batches):
        J = ntkest.linearize(lambda p, x=x: network(p, x), params)
        float(ntkest.trace(J, method="reverse", passes=PROBES, seed=number))
        gradient = J.vjp(jnp.reshape(J.outputs - y, (1, -1)))
        leaves, treedef = jax.tree.flatten(params)
        moved = [p - RATE * jnp.reshape(g, p.shape) for p, g in zip(leaves, gradient, strict=True)]
        params = jax.block_until_ready(jax.tree.unflatten(treedef, moved))
        counts.append(seen.count())
    return counts


def network(params: Any, x: Any) -> Any:
    """A small smooth MLP."""
    return jnp.tanh(x @ params["a"]) @ params["b"]


def data(seed: int) -> tuple[Any, Any, Any]:
    """Parameters and a batch."""
    keys = jax.random.split(jax.random.key(seed), 4)
    params = {"a": jax.random.normal(keys[0], (20, 32)) / 4, "b": jax.random.normal(keys[1], (32, 5)) / 5}
    return params, jax.random.normal(keys[2], (16, 20)), jax.random.normal(keys[3], (16, 5))


class Compilations:
    """Counts XLA compilations since it was last asked."""

    def __init__(self) -> None:
        self._seen = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_: Any) -> None:
        self._seen += event == "/jax/core/compile/backend_compile_duration"

    def count(self) -> int:
        """Since the last call."""
        seen, self._seen = self._seen, 0
        return seen


if __name__ == "__main__":
    main()
