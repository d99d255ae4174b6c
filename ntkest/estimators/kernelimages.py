"""Z = JQ and R of gradients G = JᵀΩ = QR from Y = KΩ alone: for gradients that are much longer than the outputs.

GᵀG = ΩᵀY, whose Cholesky factor is Rᵀ, and Z = YR⁻¹. So no gradient is kept, nor anything else of the size of the
parameters, and no linear algebra is done there. What is lost are digits: a direction whose share of the kernel is below
the rounding errors of Y is not found, where G's own QR would find it. Such directions count as what the kernel has not.

Reference: Tropp, Yurtsever, Udell, Cevher, "Fixed-rank approximation of a positive-semidefinite matrix from streaming
data", NeurIPS 2017, where a shift of the size of rounding errors makes the factor exist.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ..linearization import Array, beside, eps, scalar_dtype
from ..tallskinny import grown_triangle
from ..tangents import Gram, SquareNorms
from .problem import Problem

ROUNDING = 4.0
"""Times ε√k‖Kω‖, for k probes, is what rounding errors of Kω may add to the spectral norm of ΩᵀY; and so many times
ε√k ωᵀKω what those of a Cholesky factor may."""


def factored_images(
    problem: Problem, a: int, r: Array | None, old: Array | None, omega: Array, images: Array
) -> tuple[Array, Array]:
    """R (m + k, m + k) of all gradients, and Z (k, M) of what new ones add: from R and Z (m, M) of those before.

    New are the probes `omega` (k, M) and their `images` Kω (k, M). Rows of Z are zero where a gradient adds nothing,
    and so are those of R.
    """
    xp, J = problem.xp, problem.kernels[a].J
    precision = eps(xp, J.outputs, *J.params)
    whole, fresh = problem.compiled(_with_images, xp, precision)(r, old, omega, images)
    return whole, fresh


def _with_images(
    xp: ModuleType, precision: float, r: Array | None, old: Array | None, omega: Array, images: Array
) -> tuple[Array, Array]:
    """R of all gradients, and Z of what is left of G beside the Q before; array-only."""
    gram, k = Gram(xp, (0,), 1), omega.shape[0]
    narrow = scalar_dtype(xp, images)
    images = xp.astype(images, narrow, copy=False)
    norms = SquareNorms(xp, (0,), 1)(images)
    across: Array | None = None
    if old is not None:
        across = gram(old, omega)[0, ...]
        images = images - xp.astype(across.T, narrow, copy=False) @ old
    product = gram(omega, images)[0, ...]
    rest, apart = (product + product.T) / 2.0, product - product.T
    tiny = 1e3 * float(xp.finfo(rest.dtype).smallest_normal)  # without it roots would have no derivative at zero
    noise = ROUNDING * precision * (k * xp.astype(xp.max(norms), rest.dtype) + tiny) ** 0.5
    noise = noise + ROUNDING * eps(xp, rest) * k**0.5 * xp.max(xp.linalg.diagonal(rest))
    noise = noise + 2.0 * (xp.sum(apart * apart) + tiny) ** 0.5
    least = xp.min(xp.linalg.eigvalsh(rest))
    shift = xp.where(least > 2.0 * noise, noise * 0, noise + xp.maximum(-least, least * 0))
    lower = xp.linalg.cholesky(rest + shift * beside(xp, np.eye(k), rest))
    there = xp.astype(xp.linalg.diagonal(lower) ** 2 > 2.0 * shift, rest.dtype)[:, None]
    fresh = xp.astype(xp.linalg.inv(lower) * there, narrow, copy=False) @ images
    corner = xp.astype(lower.T * there, narrow, copy=False)
    if r is None:
        return corner, fresh
    return grown_triangle(xp, r, xp.astype(across, r.dtype, copy=False), corner), fresh
