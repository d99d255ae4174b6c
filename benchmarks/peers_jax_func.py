"""Kernels in jax by hand: gradients of all examples, and their products parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .kernels_jax import network
from .kernels_networks import Given

PACKAGES = ("jax", "jaxlib")


def contestants() -> dict[str, Callable[[Given, str], Callable[[], Any]]]:
    """By name."""
    return {"jax, Jacobian contraction": contraction}


def contraction(given: Given, kind: str) -> Callable[[], Any]:
    """``vmap(jacrev)``, once for both sides of the kernel, all in one compiled program."""
    function, params, x = network(given)

    def single(params: Any, x: Any) -> Any:
        outputs = function(params, x[None])[0]
        return outputs if kind == "full" else outputs.sum(keepdims=True) / given.outputs**0.5

    @jax.jit
    def kernel(params: Any, x: Any) -> Any:
        jacobians = jax.vmap(jax.jacrev(single), (None, 0))(params, x)
        rows = [j.reshape(*j.shape[:2], -1) for j in jax.tree.leaves(jacobians)]
        total = sum(jnp.einsum("naf,mbf->namb", j, j) for j in rows)
        return total.reshape(total.shape[0] * total.shape[1], -1)

    return lambda: kernel(params, x).block_until_ready()
