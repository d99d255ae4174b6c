"""Checks that every adapter makes before it hands out a linearization.

They are made when J is made, not when it is used: a wrong number is the worst outcome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import device as device_of

from .errors import (
    InconsistentDerivativesError,
    InvalidValueError,
    NonDifferentiableError,
    NonFiniteError,
    NotRepeatableError,
)
from .precision import number, tolerance
from .protocol import Array, Blocks, Linearization


def check_dtypes(xp: ModuleType, params: Sequence[Array], names: Sequence[str], outputs: Array) -> None:
    """Refuse models without parameters or outputs, and dtypes that have no real derivative."""
    if not params or all(math.prod(p.shape) == 0 for p in params):
        raise InvalidValueError("the model has no parameters to differentiate; see params= and requires_grad")
    for what, array in [
        *(((f"parameter {n!r}"), p) for n, p in zip(names, params, strict=True)),
        ("the output", outputs),
    ]:
        if not xp.isdtype(array.dtype, "real floating"):
            raise NonDifferentiableError(
                f"{what} is {array.dtype}; real floating point is needed (integers have no derivative, and for "
                "complex numbers take real and imaginary parts in output=)"
            )
    if math.prod(outputs.shape) == 0:
        raise InvalidValueError(
            f"the output has shape {tuple(outputs.shape)} and so no entries; give at least one example"
        )


def check_finite(xp: ModuleType, params: Sequence[Array], names: Sequence[str], outputs: Array) -> None:
    """Refuse NaN and infinity in the parameters and the outputs. Needs concrete arrays."""
    for name, array in zip(names, params, strict=True):
        if not bool(xp.all(xp.isfinite(array))):
            raise NonFiniteError(f"parameter {name!r} holds NaN or infinity")
    if not bool(xp.all(xp.isfinite(outputs))):
        bad = int(xp.sum(xp.astype(~xp.isfinite(outputs), xp.int32)))
        raise NonFiniteError(f"{bad} of {math.prod(outputs.shape)} outputs are NaN or infinity")


def check_repeatable(xp: ModuleType, first: Array, second: Array, epsilon: float, advice: str) -> None:
    """Refuse a model whose outputs differ between two calls on the same input (train-mode dropout)."""
    scale = number(xp.max(xp.abs(first)))
    gap = number(xp.max(xp.abs(first - second)))
    if not gap <= math.sqrt(epsilon) * scale:
        raise NotRepeatableError(
            f"two calls of the model on the same input differ by {gap:.2g} (outputs reach {scale:.2g}); {advice}"
        )


def check_adjoint(J: Linearization, epsilon: float) -> int:
    """Compare ⟨ω, Jv⟩ with ⟨Jᵀω, v⟩ for one pair of sign probes; one pass a mode.

    Returns the exponent e for which the images have entries near 2**e, which `Linearization.exponent`
    reports. With one mode there is nothing to compare, and only the exponent is found.
    """
    xp = J.xp
    omega, v = adjoint_probes(xp, J.params, J.outputs)
    largest, products, size = 0.0, [], 0.0
    if "vjp" in J.modes:
        images = J.vjp(omega)
        peak, norm, product = _compare(xp, images, v)
        largest, size = max(largest, peak), size + norm
        products.append(product)
    if "jvp" in J.modes:
        peak, norm, product = _compare(xp, (J.jvp(v),), (omega,))
        largest, size = max(largest, peak), size + norm
        products.append(product)
    if not math.isfinite(size) or not math.isfinite(largest):
        raise NonFiniteError("a derivative of the model is NaN or infinite although its outputs are finite")
    if len(products) == 2 and not abs(products[0] - products[1]) <= tolerance(epsilon) * size:
        raise InconsistentDerivativesError(
            f"the JVP and the VJP of the model disagree: ⟨v, Jᵀω⟩ = {products[0]:.6g} but ⟨ω, Jv⟩ = {products[1]:.6g}; "
            "look for a custom derivative rule that is wrong, or a layer that changes state between calls"
        )
    return math.frexp(largest)[1] if largest > 0 else 0


def same_kernel(J: Linearization, other: Linearization, epsilon: float) -> bool:
    """Whether Jᵀω and Kω of a sign probe have the same length in all blocks, and are the same; two passes a mode."""
    omega, _ = adjoint_probes(J.xp, J.params, J.outputs)
    pulled = J.vjp(omega), other.vjp(omega)
    norms = [[_compare(J.xp, (image,), (image,))[1] for image in images if math.prod(image.shape)] for images in pulled]
    longest = max(norms[0])
    near = tolerance(epsilon)
    if longest == 0 or any(abs(a - b) > near * longest for a, b in zip(*norms, strict=True)):
        return longest == 0 == max(norms[1])
    if "jvp" not in J.modes:
        return True
    scale = math.ldexp(1.0, -math.frexp(longest)[1])
    left, right = (j.jvp(tuple(a * scale for a in images)) for j, images in zip((J, other), pulled, strict=True))
    size = _compare(J.xp, (left,), (left,))[1]
    return bool(_compare(J.xp, (left - right,), (left,))[1] <= near * size)


def adjoint_probes(xp: ModuleType, params: Sequence[Array], outputs: Array) -> tuple[Array, Blocks]:
    """The cotangent (1, M) and the tangent ((1, P_1), …) that `check_adjoint` uses, for adapters that compile ahead."""
    omega = _signs(xp, (1, math.prod(outputs.shape)), outputs, stream=0)
    return omega, tuple(_signs(xp, (1, math.prod(p.shape)), p, stream=1 + i) for i, p in enumerate(params))


def _compare(xp: ModuleType, images: Sequence[Array], probes: Sequence[Array]) -> tuple[float, float, float]:
    """Largest entry of the images, their norm, and their inner product with the probes; safe from overflow."""
    peak = max(number(xp.max(xp.abs(a))) for a in images if math.prod(a.shape))
    if not math.isfinite(peak) or peak == 0:
        return peak, peak, 0.0
    scale = math.ldexp(1.0, math.frexp(peak)[1] - 1)
    square = product = 0.0
    for image, probe in zip(images, probes, strict=True):
        image = xp.astype(image / scale, xp.float32) if image.dtype != getattr(xp, "float64", None) else image / scale
        square += number(xp.sum(image * image))
        product += number(xp.sum(image * xp.astype(probe, image.dtype)))
    return peak, math.sqrt(square) * scale, product * scale


def _signs(xp: ModuleType, shape: tuple[int, ...], like: Array, stream: int) -> Any:
    """±1 in the dtype and on the device of `like`, the same on every backend."""
    count = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(np.random.default_rng([19, stream]).bytes(-(-count // 8)), np.uint8))[:count]
    signs = xp.asarray(np.asarray(2 * bits.astype(np.int8) - 1), device=device_of(like))
    return xp.reshape(xp.astype(signs, like.dtype), shape)
