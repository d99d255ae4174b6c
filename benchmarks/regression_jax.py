"""The ConvNet of the benchmark of regression in jax: its outputs, its training, and J."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ntkest

from .regression_data import MOMENTUM, RATE, Params, batches


def forward(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    for i, stride in enumerate((1, 2)):
        # 1 on each side, as torch pads; "SAME" would pad strides otherwise
        x = jax.lax.conv_general_dilated(x, params[f"conv{i}.weight"], (stride, stride), [(1, 1), (1, 1)])
        x = jax.nn.relu(x + params[f"conv{i}.bias"][:, None, None])
    return x.reshape(len(x), -1) @ params["readout.weight"].T + params["readout.bias"]


def train(start: Params, images: np.ndarray, aims: np.ndarray, epochs: int) -> Params:
    x, y = jnp.asarray(images), jnp.asarray(aims)

    def loss(params: Any, batch: jax.Array) -> jax.Array:
        return ((forward(params, x[batch]) - y[batch]) ** 2).sum(1).mean()

    @jax.jit
    def step(params: Any, velocity: Any, batch: jax.Array) -> Any:
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, jax.grad(loss)(params, batch))
        return jax.tree.map(lambda p, v: p - RATE * v, params, velocity), velocity

    params = {name: jnp.asarray(array) for name, array in start.items()}
    velocity = jax.tree.map(jnp.zeros_like, params)
    for batch in batches(len(images), epochs):
        params, velocity = step(params, velocity, jnp.asarray(batch))
    return {name: np.asarray(p) for name, p in params.items()}


def linearization(params: Params, images: np.ndarray) -> Any:
    return ntkest.linearize(forward, {k: jnp.asarray(v) for k, v in params.items()}, jnp.asarray(images))
