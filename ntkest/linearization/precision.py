"""What a dtype can carry: accumulation dtypes, tolerances, and numbers out of arrays."""

from __future__ import annotations

import math
import re
from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import array_namespace, to_device
from array_api_compat import device as device_of

from .errors import TracedValueError
from .protocol import Array

_NUMPYS_OWN = frozenset(
    f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64) if kind != "float" or bits > 8
)
"""Names of the dtypes that arrays of NumPy alone can have; ml_dtypes adds others, which frameworks may refuse."""


def eps(xp: ModuleType, *arrays: Array) -> float:
    """The largest machine epsilon among the dtypes of `arrays`."""
    return max(float(xp.finfo(a.dtype).eps) for a in arrays)


def device(array: Array) -> Any:
    """The device of `array`; None for a traced array, which has none to ask."""
    try:
        return device_of(array)
    except (AttributeError, TypeError, ValueError):
        return None


def accumulator(xp: ModuleType, array: Array) -> Any:
    """The dtype in which long sums over `array` are added: float64 where the device has it, else float32."""
    dtypes = xp.__array_namespace_info__().dtypes(kind="real floating", device=device(array))
    return dtypes.get("float64", xp.float32)


def scalar_dtype(xp: ModuleType, array: Array) -> Any:
    """The dtype of results about `array`: its own if that is at least float32, else float32."""
    return array.dtype if array.dtype in (xp.float32, getattr(xp, "float64", xp.float32)) else xp.float32


def beside(xp: ModuleType, values: Any, like: Array, dtype: Any = None) -> Array:
    """Host numbers as an array beside `like` (which may be traced, and then has no device), by default in its dtype."""
    dtype = like.dtype if dtype is None else dtype
    host = np.asarray(values)
    name = dtype_name(dtype)
    if name in _NUMPYS_OWN:  # converted on the host, it needs no conversion on the device
        host = host.astype(name, copy=False)
    where = device(like)
    array = xp.asarray(host, dtype=dtype)
    if len(getattr(where, "device_set", ())) > 1:  # spread over several devices, for which this need not have the shape
        return array
    # Moving is for where it is needed: asked for the device they are on anyway, some namespaces compile a copy
    return array if where is None or device(array) == where else xp.asarray(host, dtype=dtype, device=where)


def safe_root(xp: ModuleType, square: Array) -> Array:
    """Square root with gradient 0, not infinity, at 0."""
    positive = square > 0
    return xp.where(positive, xp.where(positive, square, square * 0 + 1) ** 0.5, square * 0)


def tolerance(epsilon: float) -> float:
    """Relative difference beyond which two routes to the same derivative are called different."""
    return 3.0 * math.sqrt(epsilon)


def number(value: Array, what: str = "this value") -> float:
    """A Python float. Here, in `numbers` and in `host` alone an array's content comes to the host."""
    try:
        return float(detached(value))
    except (TypeError, RuntimeError) as error:  # jax and torch.func raise these for traced arrays
        raise TracedValueError(
            f"{what} is needed as a number, but a framework is tracing; return .value and .std_error from the "
            "transformed function and ask outside it"
        ) from error


def numbers(values: Array, what: str = "these values") -> np.ndarray:
    """A small array on the host, in float64; for decisions, intervals and plots, never for results."""
    values = detached(values)
    if isinstance(values, np.ndarray):
        return values.astype(np.float64, copy=False)
    try:
        return np.asarray(values.tolist(), dtype=np.float64)
    except (TypeError, RuntimeError) as error:
        raise TracedValueError(
            f"{what} are needed as numbers, but a framework is tracing; return .value and .std_error from the "
            "transformed function and ask outside it"
        ) from error
    except AttributeError:  # not every namespace's arrays have tolist
        flat = [number(values[index]) for index in np.ndindex(*values.shape)]
        return np.asarray(flat, dtype=np.float64).reshape(values.shape)


def host(array: Array) -> np.ndarray:
    """An array on the host, in its own dtype if NumPy has that and else in float32; to be written to files."""
    xp, array = array_namespace(array), detached(array)
    if dtype_name(array.dtype) not in _NUMPYS_OWN | {"bool"}:
        array = xp.astype(array, xp.float32)
    try:
        return np.asarray(array)
    except (TypeError, RuntimeError, ValueError):  # it lives on an accelerator
        try:
            array = to_device(array, "cpu")
        except (TypeError, ValueError):
            array = to_device(array, xp.__array_namespace_info__().default_device())
        return np.asarray(array)


def settled(array: Array) -> np.ndarray | None:
    """`host` of what has a content now and hangs on no gradient tape; None of anything else."""
    if isinstance(array, np.ndarray):
        return array
    if getattr(array, "requires_grad", False):
        return None
    try:
        return host(array)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None


def dtype_name(dtype: Any) -> str:
    """The name of a dtype in every namespace, such as "float32"."""
    return str(re.findall(r"\w+", str(dtype))[-1])


def is_concrete(value: Array) -> bool:
    """Whether `value` (an array of size one) has a content now, or is only traced."""
    try:
        float(detached(value))
    except (TypeError, RuntimeError):
        return False
    return True


def detached(value: Array) -> Array:
    """`value` cut off from a gradient tape, where it has one."""
    return value.detach() if hasattr(value, "detach") else value
