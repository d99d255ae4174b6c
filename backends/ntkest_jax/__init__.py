"""The ntkest adapter for functions of pytrees and for Flax and Equinox modules, in JAX.

Read in this order: `modules` (what was handed in), `derivatives` (from functions to jaxprs), `passes` (the loop over
probes), `inspection` (checks), `adapter` (all of it together); `structure` and `cache` keep XLA from compiling twice.
Gradients of single examples are in `examples`; `rewriting`, `paths` and `factors` find those that are products.
`longrows` multiplies such gradients with each other.
"""

import jax.numpy as jnp

from ntkest.linearization import provide_row_products

from .adapter import JaxBackend
from .linearization import JaxLinearization
from .longrows import row_products

__all__ = ["JaxBackend", "JaxLinearization", "backend"]

backend = JaxBackend()

provide_row_products(jnp, row_products)
