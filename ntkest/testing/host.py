"""Arrays to and from NumPy: the one place where the kit copies between devices, and it does so on purpose."""

from __future__ import annotations

from types import ModuleType

import numpy as np
from array_api_compat import array_namespace, to_device
from array_api_compat import device as device_of

from ..linearization import Array


def to_host(array: Array) -> np.ndarray:
    """A copy of `array` as float64 in NumPy, from any namespace and device."""
    xp = array_namespace(array)
    if hasattr(array, "detach"):  # torch refuses to convert what still records gradients
        array = array.detach()
    if xp.isdtype(array.dtype, "real floating") and array.dtype not in (xp.float32, getattr(xp, "float64", None)):
        array = xp.astype(array, xp.float32)  # NumPy has no bfloat16
    try:
        return np.asarray(array).astype(np.float64)
    except (TypeError, RuntimeError, ValueError):  # it lives on an accelerator
        try:
            array = to_device(array, "cpu")
        except (TypeError, ValueError):
            array = to_device(array, xp.__array_namespace_info__().default_device())
        return np.asarray(array).astype(np.float64)


def from_host(xp: ModuleType, values: np.ndarray, like: Array) -> Array:
    """`values` in the namespace, in the dtype and on the device of `like`."""
    wide = like.dtype == getattr(xp, "float64", None)
    narrowed = np.asarray(values, dtype=np.float64 if wide else np.float32)  # some devices know no float64
    return xp.astype(xp.asarray(narrowed, device=device_of(like)), like.dtype)
