"""Array namespaces for tests that need arrays and no derivatives."""

from importlib.util import find_spec

import numpy as np

NAMESPACES = [n for n in ("numpy", "array_api_strict", "torch", "jax") if find_spec(n) is not None]


def asarray(namespace, values, dtype=None):
    """Host values as an array of a namespace."""
    values = np.asarray(values, dtype=dtype)
    if namespace == "numpy":
        return values
    if namespace == "array_api_strict":
        import array_api_strict

        return array_api_strict.asarray(values)
    if namespace == "torch":
        import torch

        return torch.tensor(values)
    import jax.numpy as jnp

    return jnp.asarray(values)


def accuracy(array):
    """Relative error that its dtype admits in a well-conditioned solve: jax has float32 only, unless told."""
    return 1e-9 if "float64" in str(array.dtype) else 2e-3
