"""Inner products of long rows on a CPU: one loop over slices that stay in the processor's cache.

Unrolled, XLA copies the slices first and multiplies afterwards, when none of them is in a cache any more; a whole
product it splits where the result is large, which is small here. Both take two to three times as long.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ntkest.linearization import Array, accumulator, scalar_dtype, sliced_products

SLICE = 2**13
"""Columns in a slice, ..."""

MOST = 512
"""... more where there would be more slices than this."""

Sum = tuple[Array, Array]
"""A sum, and what rounding has added to it."""


def row_products(left: Array, right: Array) -> Array:
    """See `ntkest.linearization.row_products`."""
    if left.shape[1] < 2 * SLICE or not left.shape[0] or not right.shape[0]:
        return sliced_products(jnp, left, right)
    return _compiled((left,) if left is right else (left, right))


@jax.custom_jvp
def _products(sides: tuple[Array, ...]) -> Array:
    """Of both sides, or of one with itself."""
    sliced = partial(sliced_products, jnp)
    product: Array = jax.lax.platform_dependent(sides, cpu=_swept, default=lambda sides: sliced(sides[0], sides[-1]))
    return product


@_products.defjvp
def _products_jvp(primals: tuple[tuple[Array, ...]], tangents: tuple[tuple[Array, ...]]) -> tuple[Array, Array]:
    (sides,), (changes,) = primals, tangents
    left, right = (changes[0], sides[-1]), (sides[0], changes[-1])
    return _products(sides), sliced_products(jnp, *left) + sliced_products(jnp, *right)


_compiled = jax.jit(_products)


def _swept(sides: tuple[Array, ...]) -> Array:
    """The sum over slices, with compensation."""
    total, working, n = accumulator(jnp, sides[0]), scalar_dtype(jnp, sides[0]), sides[0].shape[1]
    width = max(SLICE, -(-n // MOST))

    def product(start: Any, size: int) -> Array:
        cut = [jax.lax.dynamic_slice_in_dim(side, start, size, 1).astype(working) for side in sides]
        return (cut[0] @ cut[-1].T).astype(total)

    def step(so_far: Sum, start: Any) -> tuple[Sum, None]:
        return _plus(so_far, product(start, width)), None

    first = product(0, width)
    so_far, _ = jax.lax.scan(step, (first, jnp.zeros_like(first)), width * jnp.arange(1, n // width))
    if n % width:
        so_far = _plus(so_far, product(n - n % width, n % width))
    return so_far[0]


def _plus(so_far: Sum, term: Array) -> Sum:
    """Kahan's sum."""
    total, error = so_far
    term = term - error
    grown = total + term
    return grown, (grown - total) - term
