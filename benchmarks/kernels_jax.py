"""The networks of the benchmark of kernels in jax: a function ``f(params, x)``, parameters and inputs, NHWC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .kernels_networks import Given


def network(given: Given) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """With the weights that are given."""
    params = [(jnp.asarray(w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T), jnp.asarray(b)) for w, b in given.layers]
    return function, params, jnp.asarray(given.x.transpose(0, 2, 3, 1) if given.x.ndim == 4 else given.x)


def function(params: Any, x: Any) -> Any:
    """Outputs (N, O)."""
    for number, (w, b) in enumerate(params):
        if w.ndim == 4:
            x = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + b)
            x = halved(x) if params[number + 1][0].ndim == 4 else x.mean((1, 2))
        else:
            x = x @ w + b
            x = jax.nn.relu(x) if number < len(params) - 1 else x
    return x


def halved(x: Any) -> Any:
    """Means over 2 × 2 pixels."""
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
