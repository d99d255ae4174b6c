"""A linearization under test: seeded probes for it, its images on the host, and comparisons that explain themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np

from ..linearization import Array, Blocks, Linearization, eps
from .host import from_host, to_host


class ConformanceError(AssertionError):
    """A linearization breaks a law of the protocol; the message begins with the name of the law."""


class Subject:
    """What every law is given.

    Parameters
    ----------
    J : Linearization
    rtol : float
        Differences of more than this, relative to the largest entry, break a law.
    seed : int
        Of the probes.
    """

    def __init__(self, J: Linearization, rtol: float, seed: int = 0) -> None:
        self.J, self.rtol, self._seed = J, rtol, seed
        self.rows = math.prod(J.outputs.shape)
        self.sizes = [math.prod(p.shape) for p in J.params]
        self.epsilon = eps(J.xp, J.outputs, *J.params)
        self.primal = [to_host(J.outputs), *map(to_host, J.params)]
        """Outputs and parameters before any law was checked."""

    def tangents(self, count: int, stream: int = 0) -> Blocks:
        """`count` Gaussian tangents."""
        return tuple(
            from_host(self.J.xp, self._draw(count, size, 2 + 2 * stream, index), param)
            for index, (size, param) in enumerate(zip(self.sizes, self.J.params, strict=True))
        )

    def cotangents(self, count: int, stream: int = 0) -> Array:
        """`count` Gaussian cotangents."""
        return from_host(self.J.xp, self._draw(count, self.rows, 3 + 2 * stream), self.J.outputs)

    def _draw(self, *key: int) -> np.ndarray:
        return np.random.default_rng([self._seed, *key]).standard_normal(key[:2])

    def jvp(self, tangents: Blocks) -> np.ndarray:
        """J v on the host, (k, M), after a look at its shape, dtype and device."""
        return self.received("jvp", self.J.jvp(tangents), tangents[0].shape[0], self.rows, self.J.outputs)

    def vjp(self, cotangents: Array) -> list[np.ndarray]:
        """Jᵀ ω on the host, blocks (k, P_l), after a look at shapes, dtypes and devices."""
        return self.received_blocks(self.J.vjp(cotangents), cotangents.shape[0])

    def received_blocks(self, blocks: Any, count: int) -> list[np.ndarray]:
        """Blocks on the host."""
        require(
            isinstance(blocks, tuple) and len(blocks) == len(self.sizes),
            "shapes",
            f"vjp must return a tuple of {len(self.sizes)} blocks, one a parameter; got {_described(blocks)}",
        )
        return [
            self.received(f"vjp, block {name!r}", block, count, size, param)
            for name, block, size, param in zip(self.J.param_names, blocks, self.sizes, self.J.params, strict=True)
        ]

    def received(self, what: str, image: Any, count: int, size: int, like: Array) -> np.ndarray:
        """One image on the host."""
        require(image is not None, "zero blocks", f"{what} returned None; a parameter that is ignored is a zero block")
        shape = tuple(getattr(image, "shape", ()))
        require(shape == (count, size), "shapes", f"{what} must have shape {(count, size)}, got {shape}")
        require(image.dtype == like.dtype, "dtypes", f"{what} must be {like.dtype}, got {image.dtype}")
        found, wanted = array_api_compat.device(image), array_api_compat.device(like)
        require(found == wanted, "devices", f"{what} must be on {wanted}, is on {found}")
        return to_host(image)

    def close(
        self, law: str, what: str, found: Any, wanted: Any, rtol: float | None = None, scale: float = 0.0
    ) -> None:
        """Require `found` = `wanted` (arrays, or lists of them) to rounding, relative to the largest entry of both."""
        rtol = self.rtol if rtol is None else rtol
        for index, (a, b) in enumerate(zip(_list(found), _list(wanted), strict=True)):
            where = f", block {self.J.param_names[index]!r}" if isinstance(found, list) else ""
            require(a.shape == b.shape, law, f"{what}{where} has shape {a.shape}, not {b.shape}")
            gap = _peak(a - b)
            bound = rtol * max(scale, _peak(b), *(_peak(other) for other in _list(wanted)))
            require(
                gap <= bound,
                law,
                f"{what}{where} is off by {gap:.3g}, with entries up to {_peak(b):.3g}; {bound:.3g} is allowed",
            )


def require(condition: bool, law: str, message: str) -> None:
    """Raise `ConformanceError` unless `condition` holds."""
    if not condition:
        raise ConformanceError(f"{law}: {message}")


def _list(value: Any) -> Sequence[np.ndarray]:
    return value if isinstance(value, list) else [value]


def _peak(array: np.ndarray) -> float:
    return float(np.max(np.abs(array))) if array.size else 0.0


def _described(blocks: Any) -> str:
    return f"{len(blocks)} in a {type(blocks).__name__}" if hasattr(blocks, "__len__") else type(blocks).__name__
