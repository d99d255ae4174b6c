"""Arrays to and from NumPy: the one place where the kit copies between devices, and it does so on purpose."""

from __future__ import annotations

from types import ModuleType

import numpy as np
from array_api_compat import device as device_of

from ..linearization import Array
from ..linearization import to_host as copied


def to_host(array: Array) -> np.ndarray:
    """A copy of `array` as float64 in NumPy, from any namespace and device."""
    return copied(array).astype(np.float64)


def from_host(xp: ModuleType, values: np.ndarray, like: Array) -> Array:
    """`values` in the namespace, in the dtype and on the device of `like`."""
    wide = like.dtype == getattr(xp, "float64", None)
    narrowed = np.asarray(values, dtype=np.float64 if wide else np.float32)  # some devices know no float64
    return xp.astype(xp.asarray(narrowed, device=device_of(like)), like.dtype)
