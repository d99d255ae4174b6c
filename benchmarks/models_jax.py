"""The models in jax: a function ``f(params, x)``, its parameters and its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .cases import CONVNET, GRU, MLP


class Model(NamedTuple):
    function: Callable[[Any, Any], Any]
    params: Any
    x: Any
    loops: bool = True
    """Whether ``lax.map`` is worth racing: on CPUs convolutions within it take tens of times as long."""


def _normal(seed: int, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _layer(seed: int, *shape: int) -> dict[str, jax.Array]:
    return {"w": _normal(seed, *shape, scale=(2 / np.prod(shape[:-1])) ** 0.5), "b": jnp.zeros(shape[-1])}


def mlp() -> Model:
    params = [_layer(n, i, o) for n, (i, o) in enumerate(zip(MLP.widths, MLP.widths[1:], strict=False))]

    def function(params: Any, x: Any) -> Any:
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return x @ params[-1]["w"] + params[-1]["b"]

    return Model(function, params, _normal(9, MLP.batch, MLP.widths[0]))


def convnet() -> Model:
    """Images are NHWC, as is usual in jax."""
    params = [_layer(n, 3, 3, i, o) for n, (i, o, _) in enumerate(CONVNET.layers)]
    params.append(_layer(8, CONVNET.layers[-1][1], CONVNET.classes))

    def function(params: Any, x: Any) -> Any:
        for layer, (_, _, stride) in zip(params[:-1], CONVNET.layers, strict=True):
            x = lax.conv_general_dilated(
                x, layer["w"], (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + layer["b"])
        return x.mean((1, 2)) @ params[-1]["w"] + params[-1]["b"]

    return Model(function, params, _normal(9, CONVNET.batch, CONVNET.size, CONVNET.size, 3), loops=False)


def gru() -> Model:
    """The cell of torch's GRU, scanned over time; the input products of all times are taken at once."""
    h = GRU.hidden
    params = {"inputs": _layer(0, GRU.inputs, 3 * h), "states": _layer(1, h, 3 * h)}

    def function(params: Any, x: Any) -> Any:
        def step(state: Any, given: Any) -> tuple[Any, Any]:
            from_state = state @ params["states"]["w"] + params["states"]["b"]
            reset = jax.nn.sigmoid(given[:, :h] + from_state[:, :h])
            keep = jax.nn.sigmoid(given[:, h : 2 * h] + from_state[:, h : 2 * h])
            new = jnp.tanh(given[:, 2 * h :] + reset * from_state[:, 2 * h :])
            state = (1 - keep) * new + keep * state
            return state, state

        given = x @ params["inputs"]["w"] + params["inputs"]["b"]
        _, states = lax.scan(step, jnp.zeros((x.shape[0], h)), given.swapaxes(0, 1))
        return states.swapaxes(0, 1)

    return Model(function, params, _normal(9, GRU.batch, GRU.steps, GRU.inputs))


MODELS: dict[str, Callable[[], Model]] = {"mlp": mlp, "convnet": convnet, "gru": gru}
