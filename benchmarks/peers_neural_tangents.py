"""Kernels by neural-tangents, each of its implementations of the empirical NTK; it needs jax 0.4.23.

Reference: Novak, Sohl-Dickstein, Schoenholz, "Fast finite width neural tangent kernel", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import neural_tangents as nt

from .kernels_jax import network
from .kernels_networks import Given

PACKAGES = ("neural-tangents", "jax", "jaxlib")


def contestants() -> dict[str, Callable[[Given, str], Callable[[], Any]]]:
    """By name."""
    ways = {
        "auto": nt.NtkImplementation.AUTO,
        "Jacobian contraction": nt.NtkImplementation.JACOBIAN_CONTRACTION,
        "NTK-vector products": nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
        "structured derivatives": nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    }
    return {f"neural-tangents, {name}": partial(empirical, way) for name, way in ways.items()}


def empirical(way: Any, given: Given, kind: str) -> Callable[[], Any]:
    """Compiled, for inputs along the first axis that do not interact, and with one set of them, as it advises."""
    function, params, x = network(given)

    def wanted(params: Any, x: Any) -> Any:
        outputs = function(params, x)
        return outputs if kind == "full" else outputs.sum(1, keepdims=True) / given.outputs**0.5

    entries = nt.empirical_ntk_fn(wanted, trace_axes=(), vmap_axes=0, implementation=way)

    @jax.jit
    def kernel(params: Any, x: Any) -> Any:
        found = entries(x, None, params)  # (n, m, a, b)
        return found.transpose(0, 2, 1, 3).reshape(found.shape[0] * found.shape[2], -1)

    return lambda: kernel(params, x).block_until_ready()
