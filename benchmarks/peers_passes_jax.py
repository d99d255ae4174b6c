"""O reverse passes of the whole batch in jax: what the exact trace of a classifier is held against."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .kernels_jax import network
from .kernels_networks import Given

PACKAGES = ("jax", "jaxlib")


def contestants() -> dict[str, Callable[[Given, str], Callable[[], Any]]]:
    """By name."""
    return {
        "jax, a gradient a cotangent": partial(passes, False),
        "jax, all gradients together": partial(passes, True),
    }


def passes(together: bool, given: Given, kind: str) -> Callable[[], Any]:
    """One forward, and the gradients of the sums of each output over the batch, in one compiled program."""
    function, params, x = network(given)
    cotangents = jnp.broadcast_to(jnp.eye(given.outputs)[:, None, :], (given.outputs, len(x), given.outputs))

    @jax.jit
    def gradients(params: Any, x: Any, cotangents: Any) -> Any:
        _, pull = jax.vjp(lambda p: function(p, x), params)
        return jax.vmap(pull)(cotangents) if together else lax.map(pull, cotangents)

    return lambda: jax.block_until_ready(gradients(params, x, cotangents))
