"""A linearization as a SciPy operator, for the solvers that SciPy has."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from .precision import beside, host
from .protocol import Blocks


class AsOperator:
    """Gives a linearization `to_scipy`."""

    xp: Any
    params: Any
    outputs: Any
    modes: Any
    jvp: Callable[[Any], Any]
    vjp: Callable[[Any], Any]

    def to_scipy(self) -> Any:
        """J as a `scipy.sparse.linalg.LinearOperator` of shape (M, P), on NumPy arrays.

        Columns are parameters, block after block as in `params`, each in C order. ``matvec`` is a JVP, ``rmatvec`` a
        VJP, and ``matmat`` and ``rmatmat`` push all columns through together, so that with ``A = J.to_scipy()`` the
        kernel is ``A @ A.T``. Each product copies its vectors to the model's device and back. Without reverse mode
        there is no ``rmatvec``; without forward mode ``matvec`` raises `UnsupportedModeError`.
        `ntkest.from_jacobian` takes it back.
        """
        from scipy.sparse.linalg import LinearOperator

        sizes = [math.prod(p.shape) for p in self.params]
        ends = [0, *accumulate(sizes)]
        dtype = np.dtype(np.float64 if self.outputs.dtype == getattr(self.xp, "float64", None) else np.float32)

        def push(columns: np.ndarray) -> np.ndarray:  # (P, k) to (M, k)
            rows = np.asarray(columns).reshape(ends[-1], -1).T
            blocks = (rows[:, a:b] for a, b in pairwise(ends))
            tangents = tuple(beside(self.xp, b, p, p.dtype) for b, p in zip(blocks, self.params, strict=True))
            return host(self.jvp(tangents)).T

        def pull(columns: np.ndarray) -> np.ndarray:  # (M, k) to (P, k)
            rows = np.asarray(columns).reshape(math.prod(self.outputs.shape), -1).T
            images: Blocks = self.vjp(beside(self.xp, rows, self.outputs, self.outputs.dtype))
            return np.concatenate([host(block) for block in images], axis=1).T

        reverse = {}
        if "vjp" in self.modes:
            reverse = {"rmatvec": lambda v: pull(v)[:, 0], "rmatmat": pull}
        shape = (math.prod(self.outputs.shape), ends[-1])
        return LinearOperator(shape, matvec=lambda v: push(v)[:, 0], matmat=push, dtype=dtype, **reverse)
